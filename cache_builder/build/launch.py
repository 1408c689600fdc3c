"""Several processes that one launcher starts for one build: ``torchrun --nproc-per-node 8 kdcache build``.

They talk through the output alone: rank 0 holds the lock, creates the store and says when the others may
write; each runs the row blocks whose number is its rank modulo their number; rank 0 waits for all and seals.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cache_builder.build.work import Tally
from cache_builder.console.progress import Progress
from cache_builder.format.errors import ConfigError, IncompleteCacheError
from cache_builder.format.layout import Tile

_POLL_S, _LONGEST_POLL_S = 0.5, 5.0
_PATIENCE_S = 900.0
"""For how long others may commit nothing, beside the time of one's own share."""


@dataclass(frozen=True)
class Launch:
    """This process among those that build together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Among those of this machine: which GPU it takes."""
    name: str | None = None
    """The same in all processes of one launch, and no other; None for a process alone."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """What ``torchrun`` and its like set; a process alone where they did not."""
        given = os.environ if environment is None else environment
        if "RANK" not in given or "WORLD_SIZE" not in given:
            return cls()
        rank, world = _number(given, "RANK"), _number(given, "WORLD_SIZE")
        if not 0 <= rank < world:
            raise ConfigError(
                f"RANK={rank} and WORLD_SIZE={world}: ranks are 0 to WORLD_SIZE - 1; unset both"
            )
        if world == 1:
            return cls()
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
        name = " ".join(given.get(variable, "-") for variable in names)
        local = _number(given, "LOCAL_RANK") if "LOCAL_RANK" in given else 0
        return cls(rank, world, local, f"{name} of {world}")

    def share(self, tiles: Iterable[Tile]) -> list[Tile]:
        """The tiles of this process: all view groups of a row block are one's, in their order."""
        return [tile for tile in tiles if tile.block % self.world == self.rank]

    def device(self, wanted: str, gpus: int) -> str:
        """``--device`` of this process: one of the machine's GPUs each, where no certain one is asked for."""
        if self.world == 1 or wanted not in ("auto", "cuda") or not gpus:
            return wanted
        return f"cuda:{self.local_rank % gpus}"


ALONE = Launch()


def await_others(out: str, tally: Tally, progress: Progress, done: int, own_s: float) -> None:
    """Until the other processes of the launch have committed their tiles, or nothing comes for long.

    ``done``: records of this process, ``own_s``: seconds that it took for them, as the others should.
    """
    tally.look()
    missing = len(tally.missing)
    if missing:
        progress.say(f"waiting for the other ranks: {missing} tiles")
    until, poll_s = time.monotonic() + own_s + _PATIENCE_S, _POLL_S
    while missing:
        time.sleep(poll_s)
        poll_s = min(poll_s * 1.5, _LONGEST_POLL_S)
        tally.look()
        left = len(tally.missing)
        progress.update(tally.elsewhere() + done, last=not left)
        if left < missing:
            until = time.monotonic() + own_s + _PATIENCE_S
        elif time.monotonic() > until:
            raise IncompleteCacheError(
                f"{out}: the other ranks committed nothing for {own_s + _PATIENCE_S:.0f} s, {left} "
                "tiles are missing: look at what they said and run the same command again"
            )
        missing = left


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except ValueError:
        raise ConfigError(
            f"{name}={given[name]!r} in the environment: expected a number, as torchrun sets it"
        ) from None
