"""What lies in a weights file or folder, read without running any code of it."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import pickle
import types
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from cache_builder.console.file_kinds import is_text, kind_of
from cache_builder.format.errors import DataError
from cache_builder.teachers.weight_places import weights_file
from cache_builder.tensors.payload import PAYLOAD_KEY, tensors_digest

# What reading a file that is no weights file raises.
LOADING_ERRORS = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError,
    AttributeError, IndexError, OSError,
)  # fmt: skip

_REMEDY = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"


def harmless() -> list[Any]:
    """Classes that training scripts keep beside weights, and that do nothing when they are made again."""
    numpy_types = {
        type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", "U1")
    }
    core = np._core.multiarray  # type: ignore[attr-defined]
    named = [(core.scalar, f"{where}.multiarray.scalar") for where in ("numpy.core", "numpy._core")]
    named += [
        (core._reconstruct, f"{where}.multiarray._reconstruct") for where in ("numpy.core", "numpy._core")
    ]
    paths = [pathlib.Path, pathlib.PurePath, pathlib.PosixPath, pathlib.PurePosixPath]
    times = [datetime.datetime, datetime.date, datetime.time, datetime.timedelta]
    others = [argparse.Namespace, types.SimpleNamespace, collections.defaultdict, np.dtype, np.ndarray, set]
    return [*others, *paths, *times, *numpy_types, *named]


def read_file(path: Path) -> tuple[object, dict[str, Any]]:
    """What a file or folder of weights holds, and kdcache's own metadata (``{}`` where it has none).

    safetensors, also in parts with their index; what ``torch.load`` reads without running code; or a folder
    with one of them. Raises :class:`DataError` that says what it is otherwise and what to do.
    """
    path = weights_file(path)
    try:
        if path.name.endswith(".index.json"):
            return _read_parts(path), {}
        if path.suffix == ".safetensors" or _has_safetensors_header(path):
            return _read_safetensors(path)
        return _read_torch(path), {}
    except LOADING_ERRORS as error:
        raise DataError(f"weights file {path} cannot be read: {_reason(path, error)}") from error


def _has_safetensors_header(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("kdcache", "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its kdcache metadata is no JSON object")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get(PAYLOAD_KEY, expected := tensors_digest(tensors)) != expected:
        raise ValueError("its numbers are not those that were written (their digest differs)")
    return tensors, metadata


def _read_parts(index: Path) -> dict[str, Any]:
    """The tensors of all files that an index names; each must be there."""
    places: dict[str, str] = json.loads(index.read_text())["weight_map"]
    state: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        # A part lies beside its index: a name that leads elsewhere is none.
        part, _ = read_file(index.parent / Path(name).name)
        state |= part if isinstance(part, dict) else {}
    missing = [name for name in places if name not in state]
    if missing:
        raise ValueError(f"its parts lack {len(missing)} tensors, the first is {missing[0]}")
    return state


def _read_torch(path: Path) -> object:
    if _is_torchscript(path):
        raise ValueError(f"it is a TorchScript program, which carries its own code; {_REMEDY}")
    with warnings.catch_warnings(), torch.serialization.safe_globals(harmless()):
        warnings.simplefilter("ignore")  # what torch makes of odd files is told by its error
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _reason(path: Path, error: BaseException) -> str:
    """One sentence; torch's own goes on for many, with terminal codes in them."""
    unsafe = _unsafe_globals(path)
    if unsafe:
        return (
            f"beside tensors it holds Python objects ({', '.join(unsafe)}), and no code of a file is run; "
            f"{_REMEDY}"
        )
    if is_text(path):
        return f"it is {kind_of(path)}, and no weights: was it downloaded whole? Give the file of the weights"
    if isinstance(error, pickle.UnpicklingError):
        return f"it is neither safetensors nor a file of torch.save, or it is damaged; {_REMEDY}"
    first = (str(error).strip() or type(error).__name__).split("\n")[0]
    return f"it is neither safetensors nor a plain state dict, or it is damaged: {first}"


def _unsafe_globals(path: Path) -> list[str]:
    try:
        found: Iterable[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  # a file that is no archive raises anything
        return []
    return sorted(found)[:4]
