"""``--share``: processes that know nothing of each other build one output, by leases of row blocks.

Whoever comes first takes the output's lock, calibrates and creates the store; the others wait for that. Then
nobody holds the lock until the last tile is committed: whoever sees that takes it again and seals the cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache_builder.build.begin import begun, prepare
from cache_builder.build.finished import BuildResult, finished, result_of, resumed
from cache_builder.build.output import check_output
from cache_builder.build.parts import part_tiles
from cache_builder.build.plan import Plan
from cache_builder.build.tile_runner import TileRunner
from cache_builder.build.work import Leased
from cache_builder.console.progress import Progress
from cache_builder.format.codecs import Fields
from cache_builder.format.commits import Commit
from cache_builder.format.conditional import create_object
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locks.block_leases import BlockLeases
from cache_builder.format.locks.lease import HeldError
from cache_builder.format.locks.lock import SHARED, Hold, JoinedHold, claimed, clear, lone_holder
from cache_builder.format.manifest import Manifest
from cache_builder.format.root import read_manifest
from cache_builder.format.statistics import TileStatistics
from cache_builder.format.store import read_bytes
from cache_builder.format.writer import CacheWriter

_POLL_S = 1.0


def build_together(plan: Plan, progress: Progress) -> BuildResult:
    """Build what others leave of an output, and seal it where nobody else did; returns when it is whole."""
    manifest = _begun_by_one(plan, progress)
    out = plan.settings.out
    part = part_tiles(manifest, plan.settings.rows)
    is_part = len(part) < len(list(tiles(manifest)))
    there_already = finished(plan) if is_part or manifest.cache_id is not None else None
    if there_already is not None:
        clear(out)
        return there_already
    if manifest.cache_id is not None:
        raise ConfigError(
            f"{out} is sealed and lacks tiles: run the same command without --share, which mends it"
        )
    runner = TileRunner(plan, manifest, SharingWriter(out, manifest), progress)
    with BlockLeases(out) as leases:
        stats = runner.run(Leased(out, part, leases, progress.say))
    if not is_part:  # a part stays open
        manifest = _sealed_by_one(out)
    return replace(
        result_of(plan.settings, manifest, stats, False, plan.table.names), order=runner.order.better()
    )


def _begun_by_one(plan: Plan, progress: Progress) -> Manifest:
    """The manifest of the store, once one of the processes has created it."""
    out, others = plan.settings.out, JoinedHold(plan.settings.out, SHARED)
    is_told = False
    while True:
        if not others.is_held:
            if read_manifest(out) is not None and lone_holder(out) is None:
                stored = resumed(plan)
                assert stored is not None
                prepare(plan, progress)
                return stored
            with _held_by_one(out) as hold:
                if hold is not None:
                    check_output(out)
                    return begun(plan, progress, hold, resumed(plan)).manifest
        elif not is_told:
            progress.say(f"another process calibrates and creates {out}: waiting for it")
            is_told = True
        time.sleep(_POLL_S)


def _sealed_by_one(out: str) -> Manifest:
    """The manifest of the sealed cache, whichever process seals it. All tiles are committed."""
    while True:
        manifest = read_manifest(out)
        if manifest is not None and manifest.cache_id is not None:
            clear(out)
            return manifest
        with _held_by_one(out) as hold:
            if hold is not None:
                return _sealed(out, hold)
        time.sleep(_POLL_S)


def _sealed(out: str, hold: Hold) -> Manifest:
    manifest = read_manifest(out)
    if manifest is None:
        raise KDCacheError(f"{out} is gone: it was removed, renamed or unmounted while it was being written")
    if manifest.cache_id is not None:
        return manifest
    writer = CacheWriter(out, manifest, hold.check)
    writer.sweep()  # every tile is committed, so that no lease means anything any more
    return writer.finish()


@contextmanager
def _held_by_one(out: str) -> Iterator[Hold | None]:
    """The lock of the output; None where another process that shares it has it at this moment.

    Raises :class:`ConfigError` where somebody builds it alone.
    """
    with ExitStack() as stack:
        hold = None
        try:
            hold = stack.enter_context(claimed(out, SHARED))
        except HeldError:
            if lone_holder(out) is not None:
                raise
        yield hold


class SharingWriter(CacheWriter):
    """Writes tiles that somebody else may write at the same time, should this process have lost its lease.

    A commit is never taken away, as a lone writer does before it rewrites a tile, and never replaced: both
    write the same bytes, so that the tile is whole at every instant, whoever comes last.
    """

    def write_tile(
        self,
        tile: Tile,
        fields: Fields,
        digests: NDArray[np.uint64],
        invalid_rows: Iterable[int] = (),
        statistics: TileStatistics | None = None,
    ) -> int:
        """As :class:`CacheWriter` does; a tile that is committed stays as it is."""
        if self.is_committed(tile):
            return 0
        try:
            return super().write_tile(tile, fields, digests, invalid_rows, statistics)
        except FileNotFoundError:
            # Whoever sealed the cache meanwhile swept unfinished files, ours among them.
            if self.is_committed(tile):
                return 0
            raise

    @contextmanager
    def _rewriting(self, tile: Tile) -> Iterator[None]:
        self._check()
        with self._present():
            yield

    def _check_commit(self, tile: Tile, commit: Commit) -> None:
        # Before the shards: those of another machine are not replaced beneath its commit.
        if read_bytes(self._store, tile.key) not in (None, commit.to_bytes()):
            raise KDCacheError(
                f"{self.location}: {tile} was committed by another process with other bytes: do its machine "
                "or libraries differ from ours, so that the teacher computes other numbers? Run the same "
                "command with --repair, alone, when the build is done"
            )

    def _write_commit(self, tile: Tile, commit: Commit) -> None:
        if create_object(self._store, tile.key, commit.to_bytes()) is None:
            self._check_commit(tile, commit)
