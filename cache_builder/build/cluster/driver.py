"""The driver of a build on a Ray cluster: it holds the output, hands out its row blocks and seals it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache_builder.build.cluster.actors import Assignment
from cache_builder.build.cluster.crew import Crew
from cache_builder.build.cluster.dispatch import POLL_S, Dispatch
from cache_builder.build.cluster.runtime import connected, fetched, what_died
from cache_builder.build.cluster.seen import Witness
from cache_builder.build.cluster.told import Relay
from cache_builder.build.finished import BuildResult, result_of
from cache_builder.build.output import check_output
from cache_builder.build.parts import part_tiles, source_of_part
from cache_builder.build.plan import as_there
from cache_builder.build.preflight import opened_source
from cache_builder.build.settings import BuildSettings
from cache_builder.build.work import Tally
from cache_builder.console.progress import BuildStats, Progress
from cache_builder.datasets import ImageSource
from cache_builder.datasets.orders import OrderTally
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.locks.lock import Hold, claimed, clear
from cache_builder.format.manifest import Manifest
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import CacheWriter
from cache_builder.views.replay import Replay

_MOST_DEATHS = 3
"""Teachers that may die while they calibrate."""
_SAID_AFTER_S = 20.0


def build_on_ray(
    settings: BuildSettings, progress: Progress, source: ImageSource | None = None
) -> BuildResult:
    """Build or continue a cache with teachers on a Ray cluster; the bytes are those of one process.

    Raises what a build in one process does, also where it happened on a node, and :class:`ConfigError` where
    no cluster can be reached, or a node does not see the data set or the output.
    """
    if settings.device.startswith("cuda:"):
        raise ConfigError(
            f"--device {settings.device}: with --engine ray give auto, cuda or cpu; Ray deals out the GPUs"
        )
    check_output(settings.out)
    there = as_there(settings, read_manifest(settings.out))
    if source is None or there.decoding != settings.decoding:
        source = opened_source(there)
    with connected(there.address) as ray:
        return _Driver(ray, there, source, progress).build()


class _Driver:
    def __init__(self, ray: Any, settings: BuildSettings, source: ImageSource, progress: Progress) -> None:
        self._ray, self._settings, self._progress = ray, settings, progress
        self._launch = f"ray {uuid.uuid4().hex}"
        folder, witness = str(Path.cwd()), Witness.of(source)
        assignment = Assignment(settings, self._launch, version("kdcache"), folder, witness)
        of_part = source_of_part(settings, source)
        self._crew = Crew(ray, settings, [ray.put(assignment), ray.put(of_part)])

    def build(self) -> BuildResult:
        """What a single process does: look, hold, begin, run, seal."""
        with self._ended():
            # Before the lock: a finished cache may lie on a disk that cannot be written to.
            there = None if self._settings.repair else self._alone("finished")
            if there is not None:
                clear(self._settings.out)
                return there
            # The actors end while the output is held: none writes after somebody else takes it.
            with claimed(self._settings.out, self._launch) as hold, self._ended():
                hold.ready()
                there = self._alone("begin")
                return self._built(hold) if there is None else there

    @contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._crew.end(self._progress.say)

    def _built(self, hold: Hold) -> BuildResult:
        manifest = read_manifest(self._settings.out)
        if manifest is None:
            raise KDCacheError(
                f"{self._settings.out} was begun on a node, and the driver sees no cache there"
            )
        self._crew.use_decoders(Replay.of(manifest))
        part = part_tiles(manifest, self._settings.rows)
        dispatch = self._run(manifest, part)
        self._crew.end(self._progress.say)
        if len(part) == len(list(tiles(manifest))):
            manifest = CacheWriter(self._settings.out, manifest, hold.check).finish()  # a part stays open
        stats = BuildStats.sum(one.stats for one in dispatch.done)
        order = OrderTally.merged([one.order for one in dispatch.done])
        found = result_of(self._settings, manifest, stats, was_finished=False)
        return replace(found, order=None if order is None else order.better())

    def _run(self, manifest: Manifest, part: list[Tile]) -> Dispatch:
        """Until every tile of the part is committed."""
        counts: dict[int, int] = {}
        for tile in part:
            counts[tile.block] = counts.get(tile.block, 0) + tile.count
        dispatch = Dispatch(self._ray, self._crew, counts.__getitem__, self._progress)
        missing = Tally(self._settings.out, part, is_live=False).missing
        blocks = list(dict.fromkeys(tile.block for tile in missing))
        before = sum(count for block, count in counts.items() if block not in blocks)
        dispatch.run(blocks, before, sum(counts.values()))
        return dispatch

    def _alone(self, method: str) -> BuildResult | None:
        """Call one teacher while no other is at work; another time where it dies, as it may be repeated."""
        given = self._crew.teachers.given
        for attempt in range(_MOST_DEATHS):
            teacher = self._first_teacher()
            try:
                there: BuildResult | None = self._told(teacher, getattr(teacher, method).remote(given))
            except what_died(self._ray) as error:
                if attempt + 1 == _MOST_DEATHS:
                    why = str(error).strip().partition("\n")[0][:300]
                    raise KDCacheError(
                        f"{_MOST_DEATHS} teachers died before the first tile, the last: {why}"
                    ) from error
                self._progress.say("a teacher died before the first tile: once more")
                self._crew.teachers.reopen(teacher)
            else:
                return there
        raise AssertionError

    def _first_teacher(self) -> Any:
        """A teacher that has been opened."""
        teachers, began = self._crew.teachers, time.monotonic()
        said = False
        while not teachers.ready:
            teachers.grow(1)
            if not teachers.opening:
                time.sleep(POLL_S)
                continue
            ended, _ = self._ray.wait([*teachers.opening], num_returns=1, timeout=POLL_S)
            for ref in ended:
                teachers.opened(ref)
            if not said and time.monotonic() - began > _SAID_AFTER_S:
                self._progress.say(self._crew.lacking())
                said = True
        return teachers.ready[0]

    def _told(self, teacher: Any, ref: Any) -> Any:
        """The answer of a call, whose progress is shown meanwhile."""
        relay = Relay(self._progress)
        while True:
            is_done = bool(self._ray.wait([ref], timeout=POLL_S)[0])
            asked = teacher.told.options(concurrency_group="told").remote()
            relay.show(fetched(self._ray, asked))
            if is_done:
                return fetched(self._ray, ref)
