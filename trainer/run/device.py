"""Where a run computes: device, precision, processes, by accelerate."""

from __future__ import annotations

import logging
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from cache_builder.client.connection import PATIENCE_S
from cache_builder.format import ConfigError
from cache_builder.tensors import device as devices
from trainer.run.config import Precision
from trainer.run.peers import timeout_of

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


def make_accelerator(device: str, precision: Precision, patience_s: float = PATIENCE_S) -> Accelerator:
    """An accelerator for ``cpu``, ``cuda`` or ``cuda:N``, alone or under torchrun / accelerate launch.

    ``patience_s``: how long each process may wait for a server; the others wait for it a little longer.

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
    _check_processes(device)
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout_of(patience_s)), _any_student()],
    )


def _any_student() -> DistributedDataParallelKwargs:
    """How gradients of several processes meet.

    A student may have parameters that a step does not use, which train in one process too. Looking for them
    also keeps the buckets of gradients as they are from the first step on, so that sums over more than two
    processes have one order, before and after a run was resumed.
    """
    return DistributedDataParallelKwargs(find_unused_parameters=True)


def _check_processes(device: str) -> None:
    """Raise :class:`ConfigError` where processes of one launch would have to share a GPU."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and device.startswith("cuda:"):
        raise ConfigError(
            f"--device {device} is one GPU, but {processes} processes of this machine train together: "
            "leave --device out, and choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    if device == "cuda" and processes > torch.cuda.device_count():
        raise ConfigError(
            f"{processes} processes were launched on a machine with {torch.cuda.device_count()} GPU(s): "
            "launch one for each GPU"
        )


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
    return str(devices.resolve_device(name))


def resolve_precision(name: str, device: str) -> Precision:
    """``auto`` is bf16 on a GPU that has it, else fp32; ``device``: as resolved."""
    found = devices.resolve_precision(name, torch.device(device))
    if found == "fp16" and device == "cpu":
        raise ConfigError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    return found


def default_workers(device: str, image_size: int) -> int:
    """Loader processes where nobody chose: none for small images on a CPU, which they would only share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device == "cpu":
        return 0 if image_size <= 64 else min(2, cores - 1)
    return min(8, cores - 1)
