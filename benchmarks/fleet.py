"""Many builders of one cache on leases, simulated: they die, are taken away, and some are slow.

What is assumed of the protocol (``cache_builder.format.locks.lease``): the work is cut into row blocks; a
builder takes the lease of a free one, computes its tiles in their order and commits each; it renews the lease
every ``BEAT_S`` seconds. A builder that is told to end (SIGTERM) gives the lease back; one that dies leaves
it, and somebody else may take it ``LEASE_S`` seconds after its last sign of life and having watched it for
two and a half beats. Committed tiles stay. A builder that finds nothing to take looks again every ``POLL_S``.

:func:`simulated` plays that event by event, :func:`expected` is the closed formula of the capacity model.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field

from cache_builder.format.locks.lease import BEAT_S, LEASE_S

POLL_S = 5.0
TAKEOVER_S = LEASE_S + 2.5 * BEAT_S
"""From the last sign of life of a builder until another one has its row block."""


@dataclass(frozen=True)
class Job:
    """A cache as the builders see it."""

    blocks: int
    """Row blocks, each with a lease of its own."""
    tiles_per_block: int
    """View groups: a row block is committed in so many steps."""
    block_s: float
    """Seconds that a builder of full speed takes for a row block."""

    @property
    def tile_s(self) -> float:
        """Seconds between two commits of a builder of full speed."""
        return self.block_s / self.tiles_per_block


@dataclass(frozen=True)
class Fleet:
    """The builders, and what happens to them."""

    builders: int = 1000
    start_s: float = 120.0
    """From the start of a builder to its first picture: image, libraries, weights, what is there already."""
    slow_share: float = 0.0
    """How many of the builders are slow."""
    slow_speed: float = 1.0
    """The speed of those; the others have 1."""
    death_every_s: float = math.inf
    """Mean time from a builder's start to its sudden death (exponential)."""
    replaced_after_s: float = 300.0
    """From a death to the start of another builder in its place."""
    preempted_every_s: float = math.inf
    """Mean time from a builder's start to the signal that ends it."""
    back_after_s: float = 600.0
    """From that to the start of another builder in its place."""

    @property
    def mean_speed(self) -> float:
        """Over all builders."""
        return 1 - self.slow_share * (1 - self.slow_speed)

    @property
    def ends_per_s(self) -> float:
        """Of a running builder."""
        return 1 / self.death_every_s + 1 / self.preempted_every_s


@dataclass
class Outcome:
    """What a simulated build took."""

    seconds: float = 0.0
    """From the start of the builders to the last commit."""
    deaths: int = 0
    preemptions: int = 0
    takeovers: int = 0
    """Row blocks that a second builder went on with."""
    lost_s: float = 0.0
    """Seconds of builders that computed what was never committed."""


@dataclass
class _Builder:
    speed: float
    ends_at: float = 0.0
    dies: bool = False


@dataclass
class _Play:
    """The state of a simulation."""

    job: Job
    fleet: Fleet
    random: random.Random
    outcome: Outcome = field(default_factory=Outcome)
    fresh: deque[int] = field(default_factory=deque)
    """Tiles that are missing in row blocks that nobody holds."""
    left: list[tuple[float, int]] = field(default_factory=list)
    """The same of row blocks whose lease is free from a certain time on."""

    def started(self, builder: _Builder, now: float) -> None:
        death = self.random.expovariate(1.0) * self.fleet.death_every_s
        preemption = self.random.expovariate(1.0) * self.fleet.preempted_every_s
        builder.dies = death < preemption
        builder.ends_at = now + min(death, preemption)

    def taken(self, now: float) -> int | None:
        """Tiles that are missing in the row block that is taken; None where none is free now."""
        if self.left and self.left[0][0] <= now:
            self.outcome.takeovers += 1
            return heapq.heappop(self.left)[1]
        return self.fresh.popleft() if self.fresh else None

    def ended(self, builder: _Builder) -> float:
        """The end of a builder; gives when the one in its place begins to work."""
        if builder.dies:
            self.outcome.deaths += 1
            away = self.fleet.replaced_after_s
        else:
            self.outcome.preemptions += 1
            away = self.fleet.back_after_s
        back = builder.ends_at + away + self.fleet.start_s
        self.started(builder, back)
        return back

    def worked(self, builder: _Builder, now: float, tiles: int) -> float:
        """A builder goes through a row block; gives when it is free again."""
        tile_s = self.job.tile_s / builder.speed
        until = now + tiles * tile_s
        if until <= builder.ends_at:
            self.outcome.seconds = max(self.outcome.seconds, until)
            return until
        done = int((builder.ends_at - now) / tile_s)
        self.outcome.lost_s += builder.ends_at - now - done * tile_s
        free_at = builder.ends_at + (TAKEOVER_S if builder.dies else 0.0)
        heapq.heappush(self.left, (free_at, tiles - done))
        return self.ended(builder)


def simulated(job: Job, fleet: Fleet, seed: int) -> Outcome:
    """Play a build to its end."""
    play = _Play(job, fleet, random.Random(seed))
    play.fresh.extend([job.tiles_per_block] * job.blocks)
    slow = round(fleet.builders * fleet.slow_share)
    builders = [_Builder(fleet.slow_speed if i < slow else 1.0) for i in range(fleet.builders)]
    for builder in builders:
        play.started(builder, fleet.start_s)
    free = [(fleet.start_s, i) for i in range(fleet.builders)]
    play.random.shuffle(free)
    heapq.heapify(free)
    while play.fresh or play.left:
        now, number = heapq.heappop(free)
        builder = builders[number]
        if builder.ends_at <= now:
            heapq.heappush(free, (play.ended(builder), number))
        elif (tiles := play.taken(now)) is None:
            heapq.heappush(free, (now + POLL_S, number))
        else:
            heapq.heappush(free, (play.worked(builder, now, tiles), number))
    return play.outcome


def expected(job: Job, fleet: Fleet) -> float:
    """Seconds of a build, by formula.

    The builders that are there share the work at their mean speed; at the end, the fast ones wait for the
    row blocks that the slow ones took last, and for what the dead left.
    """
    builders = min(fleet.builders, job.blocks)
    life_s = 1 / fleet.ends_per_s if fleet.ends_per_s else math.inf
    dead_share = 1 / fleet.death_every_s / fleet.ends_per_s if fleet.ends_per_s else 0.0
    away_s = dead_share * fleet.replaced_after_s + (1 - dead_share) * fleet.back_after_s + fleet.start_s
    useful = 1 - min(1.0, job.tile_s / 2 / fleet.mean_speed / life_s)
    there = life_s / (life_s + away_s) if math.isfinite(life_s) else 1.0
    rate = builders * fleet.mean_speed * there * useful
    last_s = job.block_s / (fleet.slow_speed if fleet.slow_share * builders >= 1 else 1.0)
    # When nothing is left to take, each builder is half-way through a row block.
    begun = builders * job.block_s / 2
    until_taken_s = max(0.0, job.blocks * job.block_s - begun) / rate
    if job.blocks <= fleet.builders:
        until_taken_s = 0.0
    left_in_the_end = builders * last_s / 2 / fleet.death_every_s
    return fleet.start_s + until_taken_s + last_s + min(1.0, left_in_the_end) * TAKEOVER_S
