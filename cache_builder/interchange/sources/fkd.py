"""FKD's soft labels (szq0214/FKD): one ``torch.save`` for each image, [coordinates, flips, soft labels].

Soft labels are probabilities: all C of every crop [n, C], the top K as [n, 2, K] (ids, then values), or the
best one as [n, 2].
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.settings import DumpRequest
from cache_builder.interchange.sources.contract import NO_SCALE, NO_TAIL_SHAPE
from cache_builder.interchange.sources.even_tail import even_tail

_SUFFIXES = (".tar", ".pt", ".pth")
_LEAST = 2.0**-26
# Ids in half precision are exact up to here.
_HALF_EXACT = 2048
# Coordinates and flips are NumPy arrays; these are all the names that such arrays need.
_NUMPY: list[Any] = [
    _reconstruct,
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")},
]


class FKDDump:
    """One view for each crop; rows in the order of the files' paths."""

    own_views = True
    labels: NDArray[np.int32] | None = None

    def __init__(self, folder: Path, classes: int | None) -> None:
        self._files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
        if not self._files:
            raise DataError(f"{folder} holds no {', '.join(_SUFFIXES)} files: is it FKD's save path?")
        self.ids: Sequence[str] | None = _ids(self._files, folder)
        first = _soft_labels(self._files[0])
        self.views = len(first)
        self.top_k: int | None = None if first.ndim == 2 and first.shape[1] != 2 else int(first[0, 0].numel())
        self.classes = _classes(first, classes, self._files[0])
        self._shape, self._kind = first.shape, first.dtype
        self.stored_precision: Literal["fp32", "bf16", "fp16"] = (
            "fp16" if first.dtype == torch.float16 else "fp32"
        )
        self.lacks = [
            "views that can be drawn again: FKD stored crops and flips of its own, which no recipe draws",
            *([NO_TAIL_SHAPE] if self.top_k else []),
            NO_SCALE,
            "labels, and digests of the samples",
        ]

    def __len__(self) -> int:
        return len(self._files)

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-probabilities; with the top K alone ``log(p / p_tail)``, 0 outside."""
        out = np.empty((len(views), len(rows), self.classes), np.float32)
        for place, row in enumerate(rows):
            path = self._files[int(row)]
            labels = _soft_labels(path)
            if labels.shape != self._shape or labels.dtype != self._kind:
                raise DataError(
                    f"{path} holds {labels.dtype} {list(labels.shape)}, the first file {self._kind} "
                    f"{list(self._shape)}: another number of crops, or another label type"
                )
            try:
                out[:, place] = self._logits(labels[views.start : views.stop])
            except DataError as error:
                raise DataError(f"{path}: {error}") from error
        return out

    def _logits(self, labels: Tensor) -> NDArray[np.float32]:
        values = labels.float().numpy()
        if self.top_k is None:
            logits: NDArray[np.float32] = np.log(np.maximum(values, _LEAST)).astype(np.float32)
            return logits
        pairs = values.reshape(len(values), 2, -1)
        return even_tail(np.rint(pairs[:, 0]).astype(np.int64), pairs[:, 1], self.classes)


def open_fkd(request: DumpRequest) -> FKDDump:
    """Raises :class:`DataError` for files that are not FKD's."""
    return FKDDump(request.source, request.classes)


def _ids(files: list[Path], folder: Path) -> list[str]:
    """Paths without suffix; a folder that all have in common (``train/``) is left out."""
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    tops = {name.partition("/")[0] for name in names}
    deep = all(name.count("/") > 1 for name in names)
    return [name.partition("/")[2] for name in names] if len(tops) == 1 and deep else names


def _soft_labels(path: Path) -> Tensor:
    """The third part of a file, read without running any code in it."""
    try:
        with torch.serialization.safe_globals(_NUMPY):
            state = torch.load(path, map_location="cpu", weights_only=True)
        _, _, labels = state
        if not isinstance(labels, Tensor) or not labels.is_floating_point() or labels.ndim not in (2, 3):
            raise ValueError("its third part is no tensor of soft labels (hard labels alone teach nothing)")
        if labels.ndim == 3 and labels.shape[1] != 2:
            raise ValueError(f"soft labels {list(labels.shape)}, expected [crops, 2, K]")
    except (ValueError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise DataError(
            f"{path} is not FKD's [coordinates, flips, soft labels], or torn: {first_line}"
        ) from error
    return labels


def _classes(first: Tensor, said: int | None, path: Path) -> int:
    if first.ndim == 2 and first.shape[1] != 2:
        if said not in (None, first.shape[1]):
            raise ConfigError(f"--classes {said}: {path} has {first.shape[1]}")
        return int(first.shape[1])
    if said is None:
        raise ConfigError("FKD's top-K labels do not tell the number of classes: add --classes")
    if first.dtype == torch.float16 and said > _HALF_EXACT + 1:
        raise DataError(
            f"{path} has class ids in half precision, which are exact only up to {_HALF_EXACT}: of {said} "
            "classes some cannot be told apart any more"
        )
    return said
