"""TinyViT's saved logits (microsoft/Cream): a folder for each epoch, two files for each rank.

``logits_top{K}_epoch{E}/rank{R}-keys.txt`` has a sample key on each line, ``rank{R}-values.bin`` a record of
4 + 4 K bytes for each: the augmentation's seed (int32), K class ids (int16), K probabilities (float16).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.text_lines import lines_of
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.settings import DumpRequest
from cache_builder.interchange.sources.contract import NO_SCALE, NO_TAIL_SHAPE
from cache_builder.interchange.sources.even_tail import even_tail

_FOLDER = re.compile(r"logits_top(\d+)_epoch(\d+)")
_NAMED = 3


class TinyViTDump:
    """One view for each epoch; rows in the order in which the first epoch has the keys."""

    own_views = True
    labels: NDArray[np.int32] | None = None
    stored_precision: Literal["fp32", "bf16", "fp16"] = "fp16"
    lacks = (
        "views that can be drawn again: they came from TinyViT's own augmentations and seeds, and from mixup "
        "pairs that depend on its sampler and batch size",
        NO_TAIL_SHAPE,
        NO_SCALE,
        "labels, and digests of the samples",
        "any checksum of its own: a damaged dump is not noticed",
    )

    def __init__(self, folder: Path, classes: int) -> None:
        epochs = _epochs(folder)
        self.classes = classes
        self.top_k: int | None = epochs[0][0]
        self.views = len(epochs)
        self._epochs = [_Epoch(path, top_k) for top_k, path in epochs]
        self.ids: Sequence[str] | None = list(self._epochs[0].places)
        self._order = [epoch.order_of(self.ids) for epoch in self._epochs]

    def __len__(self) -> int:
        return len(self._order[0])

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """``log(p / p_tail)``, 0 outside the top K."""
        found = []
        for view in views:
            records = self._epochs[view].read(self._order[view][rows])
            found.append(even_tail(records["index"], records["value"].astype(np.float32), self.classes))
        return np.stack(found)


class _Epoch:
    """The files of all ranks of one epoch."""

    def __init__(self, folder: Path, top_k: int) -> None:
        self._folder = folder
        record = np.dtype([("seed", "<i4"), ("index", "<i2", (top_k,)), ("value", "<f2", (top_k,))])
        self._parts: list[NDArray[np.void]] = []
        self.places: dict[str, int] = {}
        """Position of each key in all files one after the other; of keys in several files, the first."""
        first = 0
        for keys_file in sorted(folder.glob("rank*-keys.txt"), key=_rank):
            keys = lines_of(keys_file.read_text(encoding="utf-8"))
            self._parts.append(_values(keys_file, len(keys), record))
            for position, key in enumerate(keys, start=first):
                self.places.setdefault(key, position)
            first += len(keys)
        if not self.places:
            raise DataError(
                f"{folder} holds no rank*-keys.txt with keys: a TinyViT epoch that was not finished?"
            )
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def order_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Position of each id; :class:`DataError` unless the epoch has exactly these."""
        missing = [key for key in ids if key not in self.places]
        if missing or len(self.places) != len(ids):
            extra = len(self.places) - (len(ids) - len(missing))
            raise DataError(
                f"{self._folder} has other keys than the first epoch: {len(missing)} missing "
                f"({', '.join(missing[:_NAMED])}), {extra} more; an epoch that was interrupted?"
            )
        return np.array([self.places[key] for key in ids], np.int64)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.void]:
        """Records at the given positions."""
        part = np.searchsorted(self._starts, positions, side="right") - 1
        out = np.empty(len(positions), self._parts[0].dtype)
        for index, records in enumerate(self._parts):
            chosen = part == index
            out[chosen] = records[positions[chosen] - self._starts[index]]
        return out


def open_tinyvit(request: DumpRequest) -> TinyViTDump:
    """Raises :class:`ConfigError` without the number of classes, :class:`DataError` for a damaged dump."""
    if request.classes is None:
        raise ConfigError("a TinyViT dump does not tell the number of classes: add --classes")
    return TinyViTDump(request.source, request.classes)


def _epochs(folder: Path) -> list[tuple[int, Path]]:
    """(K, folder) by epoch; ``folder`` may also be that of a single epoch."""
    candidates = [folder, *folder.iterdir()] if folder.is_dir() else []
    found = {}
    for path in candidates:
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found[int(match[2])] = (int(match[1]), path)
    if not found:
        raise DataError(f"{folder} holds no folder named logits_topK_epochE: is it TinyViT's logits path?")
    if len({top_k for top_k, _ in found.values()}) > 1:
        raise DataError(f"{folder} holds epochs of different K: import them one by one")
    return [found[epoch] for epoch in sorted(found)]


def _rank(path: Path) -> int:
    digits = re.sub(r"\D", "", path.name)
    return int(digits or 0)


def _values(keys_file: Path, count: int, record: np.dtype[np.void]) -> NDArray[np.void]:
    path = keys_file.with_name(keys_file.name.replace("-keys.txt", "-values.bin"))
    size = path.stat().st_size if path.exists() else 0
    if size != count * record.itemsize:
        raise DataError(
            f"{path} has {size} bytes, expected {count} records of {record.itemsize}: torn, or of another K"
        )
    return np.memmap(path, record, "r") if count else np.empty(0, record)
