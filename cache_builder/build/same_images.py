"""An image is read once for each view group, and where it is mixed with others: it must stay the same."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.mixed_pairs import ImagesRead
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderedBatch
from cache_builder.build.running import named
from cache_builder.format.errors import DataError, IncompleteCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.writer import CacheWriter


class SameImages:
    """Raises :class:`DataError` for samples that changed while the build ran, or between its runs."""

    def __init__(self, plan: Plan, manifest: Manifest, writer: CacheWriter) -> None:
        self._plan = plan
        self._manifest = manifest
        self._writer = writer
        self._latest: tuple[int, NDArray[np.uint64]] | None = None
        """The block whose first view group was run last, and its digests."""

    def check_tile(self, tile: Tile, digests: NDArray[np.uint64]) -> None:
        """Samples are read once for each view group: they must still be what they were for the first."""
        if tile.group == 0:
            self._latest = tile.block, digests
            return
        before, now = self._first_digests(tile), digests
        changed = np.flatnonzero((before != now) & (before != 0) & (now != 0))
        if changed.size:
            rows = [tile.row_start + int(index) for index in changed]
            raise DataError(
                f"{len(rows)} sample(s) of {self._plan.settings.data} changed since their first views were "
                f"recorded: {named(rows, self._plan)}; restore them, or build anew with another --out"
            )

    def check_batch(self, batch: RenderedBatch) -> None:
        """Samples that are mixed are read as partners too: it must be the same image each time."""
        if self._read is None:
            return
        own = dict(zip(batch.rows, batch.digests, strict=True))
        changed = self._read.note(own | batch.partners)
        if changed:
            raise DataError(
                f"{len(changed)} sample(s) of {self._plan.settings.data} changed, or could be read at one "
                f"time only, while others were mixed with them: {named(changed, self._plan)}; see that "
                "nothing writes to the data set, and build anew with another --out"
            )

    @cached_property
    def _read(self) -> ImagesRead | None:
        """What was read so far, also by the runs before this one; None where nothing is mixed."""
        if not self._plan.replay.mixes:
            return None
        read, cache = ImagesRead(self._manifest.data.samples), None
        for tile in tiles(self._manifest):
            if tile.group == 0 and self._writer.is_committed(tile):
                cache = cache or open_cache(self._writer.location, allow_partial=True)
                read.note_all(np.array(tile.rows), cache.read_digests(tile.rows))
        return read

    def _first_digests(self, tile: Tile) -> NDArray[np.uint64]:
        if self._latest is not None and self._latest[0] == tile.block:
            return self._latest[1]
        try:
            return self._first_group.read_digests(tile.rows)
        except IncompleteCacheError:
            # The groups of a block run in order, whichever blocks come between: it was committed meanwhile.
            del self._first_group
            return self._first_group.read_digests(tile.rows)

    @cached_property
    def _first_group(self) -> Cache:
        return open_cache(self._writer.location, allow_partial=True)
