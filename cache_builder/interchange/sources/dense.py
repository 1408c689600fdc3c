"""Logits of every class, [N, C] or [V, N, C], in a ``.npy`` or a ``.pt`` file."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.id_lists import read_ids
from cache_builder.interchange.settings import DumpRequest, Values
from cache_builder.interchange.sources.contract import NO_SCALE

_LEAST = 1e-30
_LOOKED_AT = 64


class DenseDump:
    """A memory-mapped array; nothing is read before it is asked for."""

    own_views = False
    top_k: int | None = None

    def __init__(self, request: DumpRequest) -> None:
        self._path = request.source
        self._array = _opened(request.source)
        self.views, self._rows, self.classes = (int(size) for size in self._array.shape)
        self.ids: Sequence[str] | None = (
            read_ids(f"--ids {request.ids}", request.ids, self._rows) if request.ids else None
        )
        self.labels = _labels(request.labels, self._rows) if request.labels else None
        self._values = self._checked_values(request.values)
        self.lacks = [NO_SCALE] if self._values != "logits" else []
        is_half = self._array.dtype in (np.float16, torch.float16)
        self.stored_precision: Literal["fp32", "bf16", "fp16"] = "fp16" if is_half else "fp32"
        if self._array.dtype == torch.bfloat16:
            self.stored_precision = "bf16"

    def __len__(self) -> int:
        return self._rows

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As they are, also -inf, which masks a class; probabilities as their logarithm."""
        found = self._raw(views, rows)
        usable = (np.isfinite(found) | np.isneginf(found)).all(axis=2) & np.isfinite(found.max(axis=2))
        bad = np.argwhere(~usable)
        if bad.size:
            view, row = bad[0]
            raise DataError(
                f"{self._path}: view {views[view]}, row {rows[row]} has values that are not finite"
            )
        return np.log(np.maximum(found, _LEAST)) if self._values == "probs" else found

    def _raw(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        part = self._array[views.start : views.stop]
        if isinstance(part, torch.Tensor):
            taken: NDArray[np.float32] = part[:, torch.from_numpy(rows)].float().numpy()
            return taken
        return np.asarray(part[:, rows], np.float32)

    def _checked_values(self, said: Values | None) -> Values:
        """Refuse what is plainly something else than what it is called."""
        some = self._raw(range(1), np.arange(min(_LOOKED_AT, self._rows)))
        sums = some.astype(np.float64).sum(axis=-1)
        looks_like_probs = bool((some >= 0).all() and (np.abs(sums - 1) < 0.02).all())
        if said is None and looks_like_probs:
            raise ConfigError(f"{self._path} looks like probabilities (rows sum to 1): add --values probs")
        if said == "probs" and not looks_like_probs:
            raise ConfigError(
                f"{self._path} holds no probabilities: its first row sums to {sums.flat[0]:.4g}"
            )
        return said or "logits"


def open_dense(request: DumpRequest) -> DenseDump:
    """Raises :class:`DataError` for a file that is no such array."""
    return DenseDump(request)


def _opened(path: Path) -> Any:
    """An array or tensor [V, N, C], not yet in memory."""
    if not path.is_file():
        raise DataError(f"{path} does not exist or is no file: expected a .npy or .pt file with logits")
    try:
        if path.suffix == ".npy":
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            array = _tensor(torch.load(path, map_location="cpu", weights_only=True, mmap=True), path)
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise DataError(f"{path} is neither a .npy array nor a plain tensor file: {first_line}") from error
    floating = array.is_floating_point() if isinstance(array, torch.Tensor) else array.dtype.kind == "f"
    if array.ndim not in (2, 3) or not floating or 0 in array.shape:
        shape = list(array.shape)
        raise DataError(f"{path} holds {array.dtype} {shape}, expected floats [N, C] or [V, N, C]")
    return array if array.ndim == 3 else array[None]


def _tensor(loaded: object, path: Path) -> torch.Tensor:
    """A tensor, or the only one of a dictionary."""
    found = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    if len(tensors) != 1:
        raise DataError(f"{path} holds {len(tensors)} tensors, expected one with logits")
    return tensors[0]


def _labels(path: Path, rows: int) -> NDArray[np.int32]:
    try:
        if path.suffix == ".npy":
            labels: NDArray[np.integer] = np.load(path, allow_pickle=False)
        else:
            labels = np.array([int(line) for line in path.read_text().split()], np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"--labels {path} cannot be read as integers: {error}") from error
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(f"--labels {path} has {labels.dtype} {list(labels.shape)}, expected {rows} integers")
    return labels.astype(np.int32)
