"""What breaks first as caches grow: for each thing that grows, what it may take and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.capacity_model import TILE_OPEN_BYTES, TILE_OPEN_S, Measured, Store, Work

GIB = 2**30


@dataclass(frozen=True)
class Limit:
    """Something that grows with a cache."""

    what: str
    where: str
    """Which module decides it."""
    allowed: float
    unit: str
    needs: Callable[[Work, Measured], float]
    """What a cache needs of it, in that unit."""

    def used(self, work: Work, measured: Measured) -> float:
        """1 where exactly what is allowed is needed."""
        return self.needs(work, measured) / self.allowed


LIMITS = (
    Limit(
        "memory of a builder and its data set's list", "build/plan.py, format/ids.py", 64, "GiB",
        lambda work, known: (known.builder_memory(work.samples) + work.samples * work.list_bytes) / GIB,
    ),
    Limit(
        "memory of a rank for the order of four epochs", "trainer/replay/order.py", 64, "GiB",
        # Four permutations of int64 are kept; words and places of another one while it is made.
        lambda work, _: work.samples * (4 * 8 + 2 * 8) / GIB,
    ),
    Limit(
        "memory of a server's worker for ids and their index", "format/ids.py", 16, "GiB",
        lambda work, _: work.samples * work.id_index_bytes / GIB,
    ),
    Limit(
        "memory of each reader for tiles and commits", "format/reader.py", 16, "GiB",
        lambda work, _: work.tiles * TILE_OPEN_BYTES / GIB,
    ),
    Limit(
        "time to open a cache", "format/commits.py", 60, "s",
        lambda work, _: work.tiles * TILE_OPEN_S,
    ),
    Limit(
        "one PUT of the index of the commits", "format/commits.py", 5, "GiB",
        lambda work, _: Store(work).index_bytes / GIB,
    ),
    Limit(
        "page of a view in a server's memory", "logit_server/page.py", 256, "GiB",
        lambda work, _: work.page_bytes / GIB,
    ),
    Limit(
        "1,000 builders with five row blocks each", "format/layout.py", 1, "x",
        lambda work, _: 5000 / work.blocks,
    ),
)  # fmt: skip


def lines(works: tuple[Work, ...], measured: Measured) -> Iterator[list[object]]:
    """A limit a line: what is allowed, and how much of it each cache needs."""
    for limit in LIMITS:
        used = [limit.used(work, measured) for work in works]
        yield [
            limit.what,
            limit.where,
            f"{limit.allowed:g} {limit.unit}",
            *(f"{share:.1%}" for share in used),
        ]


def first_broken(work: Work, measured: Measured) -> list[str]:
    """What a cache needs more of than is allowed, the worst first."""
    worst = sorted(LIMITS, key=lambda limit: limit.used(work, measured), reverse=True)
    return [limit.what for limit in worst if limit.used(work, measured) > 1]
