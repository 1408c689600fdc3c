"""Which tiles are this process's: all in their order, those of its rank, or those that it holds leases of.

The processes that build one output share nothing but that: a tile is somebody's, and a commit says that it
is done.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from cache_builder.format.commits import read_commit_bytes
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import Tile
from cache_builder.format.locks.block_leases import BlockLeases, LostLeaseError, leased_blocks, living_holder
from cache_builder.format.locks.lock import lone_holder
from cache_builder.format.store import list_keys, open_store

_LOOK_EVERY_S = 10.0
_LOOK_SHARE = 0.05
"""The most of its time that a process spends on looking how far all are: a listing of many tiles is long."""
_HELD_TRIED = 8
"""Blocks of others that are looked at in turn, whether their holders died: each costs a request or two."""
_POLL_S = 5.0
_SAY_EVERY_S = 900.0
"""Between two sentences of a process that waits for others."""


class Work(Protocol):
    """The tiles of this process, one after the other."""

    total: int
    """Records of all tiles that the progress counts."""

    def take(self) -> Tile | None:
        """The next tile to build; None where there is none now."""

    def is_ours(self, tile: Tile) -> bool:
        """Whether a tile that was taken may be written. Called from the thread that writes."""

    def advanced(self) -> None:
        """Note that a batch was recorded. Called from the thread that computes."""

    def committed(self, tile: Tile) -> None:
        """Note that a tile was committed. Called from the thread that writes."""

    def elsewhere(self) -> int:
        """Records of tiles that were committed before, or by other processes."""

    def wait(self) -> bool:
        """Wait a while where there may be more to take later; False where there is not."""


class Tally:
    """How much of an output is committed, by whichever process: one listing tells it."""

    def __init__(
        self,
        location: str,
        tiles: Iterable[Tile],
        is_live: bool,
        *,
        committed: Collection[str] | None = None,
    ) -> None:
        """``is_live``: others commit tiles meanwhile, so that it is looked at again from time to time.

        ``committed``: keys of the tiles that are known to be committed; None lists what there is.
        """
        self._store = open_store(location, read_only=True)
        self._tiles = {tile.key: tile for tile in tiles}
        self._is_live = is_live
        self._keys: set[str] = set()
        self._own: set[str] = set()
        self._elsewhere = 0
        self._next = 0.0
        if committed is None:
            self.look()
        else:
            self._found(committed)

    @property
    def total(self) -> int:
        """Records of all tiles."""
        return sum(tile.count for tile in self._tiles.values())

    @property
    def missing(self) -> list[Tile]:
        """The tiles that were not committed at the last look, in their order."""
        return [tile for key, tile in self._tiles.items() if key not in self._keys and key not in self._own]

    def look(self) -> None:
        """See which commits there are."""
        began = time.monotonic()
        self._found(list_keys(self._store, "commits/"))
        ended = time.monotonic()
        self._next = ended + max(_LOOK_EVERY_S, (ended - began) / _LOOK_SHARE)

    def _found(self, keys: Iterable[str]) -> None:
        self._keys = {key for key in keys if key in self._tiles}
        self._elsewhere = sum(self._tiles[key].count for key in self._keys - self._own)

    def note(self, tile: Tile) -> None:
        """This process has committed a tile."""
        self._own.add(tile.key)

    def elsewhere(self) -> int:
        """Records of tiles that this process did not commit, as of the last look."""
        if self._is_live and time.monotonic() > self._next:
            self.look()
        return self._elsewhere


class Listed:
    """Certain tiles in a certain order, which nobody else builds: those of a lone process, or of a rank."""

    def __init__(self, tiles: Iterable[Tile], tally: Tally) -> None:
        self._tally = tally
        missing = set(tally.missing)
        self._todo = deque(tile for tile in tiles if tile in missing)
        self.total = tally.total

    def take(self) -> Tile | None:
        """The next one that was not committed when the work began."""
        return self._todo.popleft() if self._todo else None

    def is_ours(self, tile: Tile) -> bool:
        """Always: the lock of the output says so."""
        return True

    def advanced(self) -> None:
        """Nobody waits to hear of it."""

    def committed(self, tile: Tile) -> None:
        """Count it."""
        self._tally.note(tile)

    def elsewhere(self) -> int:
        """As :class:`Tally` says."""
        return self._tally.elsewhere()

    def wait(self) -> bool:
        """What one has is all there is."""
        return False


class Leased:
    """Row blocks that this process holds leases of: all view groups of a block, in their order.

    It begins at any block that nobody holds and goes on with its neighbours, so that two processes seldom
    reach for the same one; where all are held it looks for holders that died.
    """

    def __init__(
        self, location: str, tiles: Iterable[Tile], leases: BlockLeases, say: Callable[[str], None]
    ) -> None:
        self._location, self._leases, self._say = location, leases, say
        self._store = open_store(location, read_only=True)
        self._blocks: dict[int, list[Tile]] = {}
        for tile in tiles:
            self._blocks.setdefault(tile.block, []).append(tile)
        everything = itertools.chain.from_iterable(self._blocks.values())
        self._tally = Tally(location, everything, is_live=True)
        self.total = self._tally.total
        self._unfinished = {tile.block for tile in self._tally.missing}
        """Blocks that lacked a tile at the last look."""
        self._rest: deque[Tile] = deque()
        """Of the block that was taken last."""
        self._open: dict[int, set[Tile]] = {}
        """What the blocks that we hold still lack."""
        self._lost: set[int] = set()
        """Blocks whose leases others took over: what is left of them is not computed."""
        self._last: int | None = None
        self._guard = threading.Lock()
        self._waits = 0
        self._says_next = 0.0

    def take(self) -> Tile | None:
        """The next tile of the block in hand, or the first of another block."""
        while self._rest and self._rest[0].block in self._lost:
            self._rest.popleft()
        while not self._rest:
            block = self._taken_block()
            if block is None:
                return None
            self._begin(block)
        return self._rest.popleft()

    def is_ours(self, tile: Tile) -> bool:
        """Whether the lease of its block still holds; where it does not, the block is forgotten."""
        try:
            self._leases.check(tile.block)
        except LostLeaseError as error:
            with self._guard:
                if self._open.pop(tile.block, None) is not None:
                    self._lost.add(tile.block)
                    self._say(f"{error}; this process goes on with other blocks")
            return False
        return True

    def advanced(self) -> None:
        """Keep the leases, which a process that hangs does not."""
        self._leases.advanced()

    def committed(self, tile: Tile) -> None:
        """Give the block back with its last tile."""
        self._tally.note(tile)
        with self._guard:
            lacking = self._open.get(tile.block, set())
            lacking.discard(tile)
            is_whole = not lacking and self._open.pop(tile.block, None) is not None
        if is_whole:
            self._leases.release(tile.block)

    def elsewhere(self) -> int:
        """As :class:`Tally` says."""
        return self._tally.elsewhere()

    def wait(self) -> bool:
        """Until somebody may have committed what is missing, or may have died."""
        self._look()
        if not self._unfinished:
            return False
        if time.monotonic() >= self._says_next:
            self._say(self._waiting_in_words())
            self._says_next = time.monotonic() + _SAY_EVERY_S
        self._waits += 1
        time.sleep(random.uniform(0.5, 1) * min(_POLL_S, 0.4 * self._waits))
        return True

    def _look(self) -> None:
        self._tally.look()
        self._unfinished = {tile.block for tile in self._tally.missing}

    def _waiting_in_words(self) -> str:
        said = (
            f"{len(self._unfinished)} row blocks are left, and other processes build them: waiting for them"
        )
        holder = living_holder(self._store) if self._waits else None
        return said if holder is None else f"{said} ({holder} is one; stop it if it hangs)"

    def _taken_block(self) -> int | None:
        for block in self._candidates():
            if self._leases.take(block):
                self._refuse_lone_builder()
                self._last = block
                return block
        return None

    def _candidates(self) -> Iterator[int]:
        """Blocks to reach for: the next one, then free ones anywhere, then some whose holders may be dead."""
        following = -1 if self._last is None else self._last + 1
        if following in self._unfinished and following not in self._open:
            yield following
        self._look()
        unfinished = self._unfinished - self._open.keys()
        held = leased_blocks(self._store)
        yield from _shuffled(unfinished - held)
        yield from _shuffled(unfinished & held)[:_HELD_TRIED]

    def _begin(self, block: int) -> None:
        """Take up what a block lacks now, which others may have built since the last look."""
        committed = read_commit_bytes(self._store, self._blocks[block])
        missing = [tile for tile in self._blocks[block] if tile.key not in committed]
        if not missing:
            self._leases.release(block)
            return
        self._rest.extend(missing)
        self._lost.discard(block)
        with self._guard:
            self._open[block] = set(missing)

    def _refuse_lone_builder(self) -> None:
        """It took the lock and looked for leases, we took a lease and look for its lock."""
        holder = lone_holder(self._location)
        if holder is not None:
            raise ConfigError(
                f"{self._location} is being built by {holder}, which does not share it: wait for it or stop "
                "it, and run the same command again"
            )


def _shuffled(blocks: set[int]) -> list[int]:
    return random.sample(sorted(blocks), len(blocks))
