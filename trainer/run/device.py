"""Where a run computes: device, precision, processes, by accelerate."""

from __future__ import annotations

import logging
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cache_builder.format import ConfigError
from trainer.run.config import Precision
from trainer.run.settings import check_device_name

_PREFIX = "ACCELERATE_"
# Other engines than this loop's: it cannot train by them.
_ENGINES = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER", "TP", "FP8")
# What `accelerate launch` says always, or what changes no number.
_HARMLESS = {
    "MIXED_PRECISION": ("no",),
    "DYNAMO_BACKEND": ("no",),
    "DYNAMO_MODE": ("default",),
    "GRADIENT_ACCUMULATION_STEPS": ("1",),
}
_NOT_NUMBERS = ("CPU_AFFINITY", "DEBUG_MODE", "TORCH_DEVICE", "LOG_LEVEL", "ENABLE_RICH")

log = logging.getLogger(__name__)


def make_accelerator(device: str, precision: Precision) -> Accelerator:
    """An accelerator for ``cpu``, ``cuda`` or ``cuda:N``, alone or under torchrun / accelerate launch.

    accelerate reads settings from ``ACCELERATE_*`` variables that may be left over from anything. None of
    them changes a run: they are taken out of the environment, those that would have changed its numbers are
    named in the log, and one that asks for another engine is a :class:`ConfigError`.
    """
    _take_out_variables(device)
    # accelerate keeps one state per process; a second run in this process may want another device.
    AcceleratorState._reset_state(reset_partial_state=True)
    if device.startswith("cuda:"):
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    else:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
    return Accelerator(cpu=device == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def _take_out_variables(device: str) -> None:
    given = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_PREFIX)}
    for name, value in given.items():
        short = name.removeprefix(_PREFIX)
        is_on = value.strip().lower() not in ("", "0", "false", "no", "off", "n", "f")
        if is_on and short.startswith("USE_") and short.removeprefix("USE_") in _ENGINES:
            raise ConfigError(
                f"the environment has {name}={value}, which asks accelerate for another engine; kdtrain "
                "trains with plain or distributed data parallelism: unset it, or change `accelerate config`"
            )
        if short == "USE_CPU" and device == "cpu":
            continue
        if short not in _NOT_NUMBERS and value not in _HARMLESS.get(short, ()) and is_on:
            log.warning(
                "%s=%s in the environment changes nothing here: kdtrain's own flags say how it trains",
                *(name, value),
            )


def resolve_device(name: str) -> str:
    """``auto`` becomes cuda where there is one; raises :class:`ConfigError` for one that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = check_device_name(name).partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return name


def resolve_precision(name: str, device: str) -> Precision:
    """``auto`` is bf16 on a GPU that has it, else fp32."""
    if name == "auto":
        return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"
    if name not in ("fp32", "bf16", "fp16"):
        raise ConfigError(f"precision {name!r} is not one of auto, fp32, bf16, fp16")
    if name == "fp16" and device == "cpu":
        raise ConfigError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    return name  # type: ignore[return-value]  # narrowed by the line above


def default_workers(device: str, image_size: int) -> int:
    """Loader processes where nobody chose: none for small images on a CPU, which they would only share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device == "cpu":
        return 0 if image_size <= 64 else min(2, cores - 1)
    return min(8, cores - 1)
