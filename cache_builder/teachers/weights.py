"""Weights of a teacher: loading a file safely, and the digest that names a teacher."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError, DataError

StateDict = dict[str, Tensor]
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
# What data parallelism and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# What reading a file that is no weights file raises.
LOADING_ERRORS = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError,
    AttributeError, IndexError,
)  # fmt: skip


def read_weights(path: Path) -> tuple[StateDict, dict[str, Any]]:
    """State dict and kdcache's own metadata (``{}`` where the file has none) of a weights file.

    safetensors, or anything ``torch.load(weights_only=True)`` accepts: no code in the file is run.
    """
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist (--weights takes default, random or a FILE)")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch makes of odd files is told by its error
            return _unwrap(torch.load(path, map_location="cpu", weights_only=True)), {}
    except LOADING_ERRORS as error:
        first_line = str(error).strip().split("\n")[0]
        raise DataError(
            f"weights file {path} is neither safetensors nor a plain state dict: {first_line}"
        ) from error


def _read_safetensors(path: Path) -> tuple[StateDict, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("kdcache", "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its kdcache metadata is no JSON object")
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _unwrap(loaded: object) -> StateDict:
    """The state dict inside the wrappers that training scripts put around it."""
    while isinstance(loaded, dict) and not all(isinstance(value, Tensor) for value in loaded.values()):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            raise ValueError(f"no state dict among its keys {', '.join(map(str, list(loaded)[:6]))}")
        loaded = inner
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("it holds no tensors")
    return {_bare(str(name)): value for name, value in loaded.items()}


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def load_into(model: nn.Module, state: StateDict, path: Path) -> None:
    """Load strictly; a mismatch is told by the names and shapes that differ."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in wanted]
    problems += [
        f"{name} is {list(found[name])}, the model has {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ConfigError(f"weights {path} do not fit the teacher: {'; '.join(problems[:4])}{more}")
    model.load_state_dict(state)


def classes_in(state: StateDict, model: nn.Module, classes: int) -> int | None:
    """Number of classes of a state dict, from the entry where ``model`` has ``classes`` outputs.

    Heads are the last parameters of a model, so the last such entry decides.
    """
    for name, value in reversed(list(model.state_dict().items())):
        if value.ndim and value.shape[0] == classes and name in state and state[name].ndim:
            return int(state[name].shape[0])
    return None


def weights_digest(model: nn.Module) -> str:
    """xxh64 (hex) over names, types, shapes and bytes of the state dict, in name order."""
    digest = xxhash.xxh64()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
