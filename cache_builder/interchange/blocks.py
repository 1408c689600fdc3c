"""Records of a cache in blocks that fit into memory, in the order of views and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.parts import parse_rows
from cache_builder.format.codecs import Stored
from cache_builder.format.errors import ConfigError
from cache_builder.format.reader import Cache

# Dense logits in memory at once, in numbers.
_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one view."""

    cache: Cache
    view: int
    rows: range
    records: NDArray[np.uint8]
    """uint8 [rows, record_bytes]."""

    @cached_property
    def stored(self) -> Stored:
        """The K classes of each record, without decoding the others."""
        return self.cache.stored(self.records)

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """Dense logits float32 [rows, C]."""
        return self.cache.decode(self.records)

    def dense(self, half: bool) -> NDArray[np.floating]:
        """The logits as float16 where asked for; :class:`ConfigError` for some that it cannot hold."""
        if not half:
            return self.logits
        if float(np.nanmax(np.abs(self.logits), initial=0.0)) > float(np.finfo(np.float16).max):
            raise ConfigError("--half: some logits are more than float16 holds; export float32")
        return self.logits.astype(np.float16)

    def top(self, wanted: int | None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Class ids and logits [rows, wanted], largest first; meaningless where a row is not valid.

        None = as many as are stored one by one; those beyond are as the sketch says.
        """
        stored = self.stored
        count = stored.classes.shape[1] if wanted is None else wanted
        if count <= stored.classes.shape[1]:
            return stored.classes[:, :count].astype(np.int32), stored.values[:, :count]
        rest = np.where(np.isfinite(self.logits), self.logits, 0)
        np.put_along_axis(rest, stored.classes, -np.inf, axis=1)
        more = np.argsort(-rest, axis=1, kind="stable")[:, : count - stored.classes.shape[1]]
        index = np.concatenate([stored.classes, more], axis=1)
        values = np.concatenate([stored.values, np.take_along_axis(rest, more, axis=1)], axis=1)
        return index.astype(np.int32), values.astype(np.float32)

    @property
    def labels(self) -> NDArray[np.int32]:
        """[rows], -1 = none."""
        return self.cache.labels[self.rows.start : self.rows.stop]

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """[rows]: whether the sample could be read when the cache was built."""
        return np.isfinite(self.stored.lse)


def blocks(cache: Cache, views: Sequence[int], rows: range) -> Iterator[Block]:
    """Blocks of at most a tile's rows, cut at the tiles' borders."""
    height = cache.manifest.tiling.rows
    most = max(1, min(height, _LOGITS_AT_ONCE // cache.manifest.classes))
    for view in views:
        for tile_start in range(rows.start - rows.start % height, rows.stop, height):
            first, last = max(tile_start, rows.start), min(tile_start + height, rows.stop)
            for start in range(first, last, most):
                part = range(start, min(start + most, last))
                yield Block(cache, view, part, cache.read_rows(view, part))


def chosen_views(cache: Cache, views: Sequence[int]) -> list[int]:
    """The views asked for, all where none is; :class:`ConfigError` for one that there is not."""
    count = cache.manifest.views.count
    for view in views:
        if not 0 <= view < count:
            raise ConfigError(f"--view {view}: {cache.location} has views 0 to {count - 1}")
    return sorted(set(views)) or list(range(count))


def chosen_rows(cache: Cache, text: str | None) -> range:
    """``START:STOP`` as a range of rows, either end may be left out; None = all."""
    return parse_rows(text, cache.manifest.data.samples)
