"""Row blocks handed out to teachers: the next block to whoever is free, once more where a teacher died."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cache_builder.build.cluster.actors import BlockDone
from cache_builder.build.cluster.crew import Crew
from cache_builder.build.cluster.rendering import DecodedElsewhere
from cache_builder.build.cluster.runtime import fetched, what_died
from cache_builder.build.cluster.told import Snapshot
from cache_builder.console.progress import BuildStats, Progress
from cache_builder.format.errors import KDCacheError

POLL_S = 1.0
_SAID_AFTER_S = 20.0
"""After so long without a teacher it is said what the cluster lacks."""
_MOST_DEATHS, _MOST_IDLE_DEATHS = 5, 20
"""Teachers that may die on one row block before it is to blame, and not their nodes."""


@dataclass
class _Running:
    """A call that runs a row block, and how far it is."""

    block: int
    teacher: Any
    asked: Any
    """Reference of the call that tells."""
    has_begun: bool = False
    """Whether the teacher answered since it was given the block: one that died while idle does not."""
    seen: Snapshot = field(default_factory=Snapshot)


class Dispatch:
    """Runs row blocks on a crew until all are done.

    Ray starts dead actors anew, and the blocks are ours to repeat: one that Ray repeated would wait for its
    own actor, which may have no node to come back to.
    """

    def __init__(self, ray: Any, crew: Crew, records: Callable[[int], int], progress: Progress) -> None:
        """``records``: how many a row block has."""
        self._ray, self._crew, self._records, self._progress = ray, crew, records, progress
        self._died = what_died(ray)
        self._idle = crew.teachers.ready
        self._running: dict[Any, _Running] = {}
        self._waiting: deque[int] = deque()
        self._deaths: Counter[int] = Counter()
        self._idle_deaths: Counter[int] = Counter()
        self._before = 0
        self._turn = 0
        self.done: list[BlockDone] = []

    def run(self, blocks: Iterable[int], before: int, total: int) -> None:
        """Until every block is done; of ``total`` records ``before`` are in blocks that were so already."""
        self._waiting.extend(blocks)
        self._before = before
        self._progress.start("building", total, before)
        began = time.monotonic()
        while self._waiting or self._running:
            self._crew.grow(len(self._waiting) + len(self._running))
            self._hand_out()
            self._await()
            if began and self._running:
                began = 0.0
            elif began and time.monotonic() - began > _SAID_AFTER_S:
                self._progress.say(self._crew.lacking())
                began = 0.0
            self._show(last=not (self._waiting or self._running))

    def _hand_out(self) -> None:
        """The next blocks to idle teachers, once there is a decoder where views are rendered by such."""
        pool = self._crew.decoders
        decoders = [] if pool is None else pool.ready
        if pool is not None and pool.actors and not decoders:
            return
        while self._idle and self._waiting:
            teacher, block = self._idle.pop(0), self._waiting.popleft()
            rendering = None
            if pool is not None and decoders:
                self._turn += 1
                teachers = len(self._crew.teachers.actors)
                rendering = DecodedElsewhere(decoders, pool.given, teachers, self._turn % len(decoders))
            ref = teacher.run.remote(block, rendering, self._crew.teachers.given)
            self._running[ref] = _Running(block, teacher, self._ask(teacher))

    def _ask(self, teacher: Any) -> Any:
        return teacher.told.options(concurrency_group="told").remote()

    def _await(self) -> None:
        """Take up what ended, for a moment."""
        pools = [self._crew.teachers] + ([self._crew.decoders] if self._crew.decoders else [])
        opening = {ref: pool for pool in pools for ref in pool.opening}
        pending = [*self._running, *opening]
        if not pending:
            time.sleep(POLL_S)
            return
        ended, _ = self._ray.wait(pending, num_returns=1, timeout=POLL_S)
        for ref in ended:
            if ref in self._running:
                self._take_up(ref)
            else:
                self._opened(ref, opening[ref])

    def _opened(self, ref: Any, pool: Any) -> None:
        actor = pool.opened(ref)
        if actor is not None and pool is self._crew.teachers:
            self._idle.append(actor)

    def _take_up(self, ref: Any) -> None:
        call = self._running.pop(ref)
        try:
            self.done.append(fetched(self._ray, ref))
        except self._died as error:
            self._repeat(call, error)
            return
        self._before += self._records(call.block)
        self._idle.append(call.teacher)

    def _repeat(self, call: _Running, error: BaseException) -> None:
        self._look_at(call)  # it may have answered since the last look
        self._deaths[call.block] += call.has_begun
        self._idle_deaths[call.block] += not call.has_begun
        why = str(error).strip().partition("\n")[0][:200]
        # One that dies at once may have had no time to say that it had begun.
        ended, idle = self._deaths[call.block], self._idle_deaths[call.block]
        if ended >= _MOST_DEATHS or idle >= _MOST_IDLE_DEATHS:
            raise KDCacheError(
                f"row block {call.block} (counted from 0) ended {ended + idle} teachers, the last: {why}. Is "
                "there too little memory for --batch-size? What was committed is kept, and the same command "
                "continues"
            ) from error
        when = "" if call.has_begun else " while it was idle"
        self._progress.say(f"a teacher died{when}, and row block {call.block} is given to another: {why}")
        self._waiting.appendleft(call.block)
        self._crew.teachers.reopen(call.teacher)

    def _show(self, last: bool) -> None:
        for call in self._running.values():
            self._look_at(call)
        done = self._before + sum(call.seen.done for call in self._running.values())
        ready = len(self._crew.teachers.ready)
        note = BuildStats.sum(one.stats for one in self.done).describe()
        self._progress.update(done, ", ".join(filter(None, [note, f"{ready} teacher(s)"])), last=last)

    def _look_at(self, call: _Running) -> None:
        if not self._ray.wait([call.asked], timeout=0)[0]:
            return
        try:
            seen = self._ray.get(call.asked)
        except self._ray.exceptions.RayError:
            return  # it died, as the call itself will say
        call.has_begun = True
        for line in seen.lines:
            self._progress.say(line)
        if seen.phase == "building":
            call.seen = seen
        call.asked = self._ask(call.teacher)
