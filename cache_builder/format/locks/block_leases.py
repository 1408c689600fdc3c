"""Leases of row blocks: any number of processes build one output, each the blocks that no other one does.

A lease is a small object that says who builds a block. It is only ever *created where none is* (a conditional
put; on a disk a hard link, which NFS keeps too) and renewed by its holder alone, so no store has to replace
anything for two at once. Whoever finds the holder of turn 0 dead creates turn 1, and so on: the last turn
holds the block. A holder is dead when its process is gone from this machine, or its lease stayed as it is for
:data:`LEASE_S` seconds of the watcher's own clock (:data:`_WATCH_S` where the clocks say so too).

A process whose work stands still, though it lives and could renew its leases, does so no more after a while
(:data:`_HUNG_S`): a driver that hangs or a disk that never answers keeps nothing from the others.

A holder that was stopped for longer finds another turn and writes no more. Should it be stopped between that
look and its write, nothing is lost either: the bytes of a tile follow from the settings alone, shards are
replaced in one step by the same bytes, and a commit is created only where none is.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from zarr.abc.store import Store

from cache_builder.format.conditional import Tagged, create_object, read_tagged, replace_object
from cache_builder.format.durable import create_file, overwrite_file
from cache_builder.format.errors import KDCacheError
from cache_builder.format.locks.holder import Holder
from cache_builder.format.locks.lease import BEAT_S, LEASE_S, LeaseState
from cache_builder.format.owned import BLOCK_LEASES, block_lease_key, leased_block
from cache_builder.format.store import delete_object, list_keys, local_root, open_store, read_bytes, read_many

_WATCH_S = 2.5 * BEAT_S
_HUNG_S = 900.0
"""Work that stands still for so long, and for as long as :data:`_STEPS` of its longest steps, hangs."""
_STEPS = 4
_FILE_BYTES = 1024
"""A lease on a disk is renewed in place, so all its versions have one length; JSON may end in spaces."""


class LostLeaseError(KDCacheError):
    """Somebody else builds the block by now."""


@dataclass
class _Held:
    """A lease of this process."""

    turn: int
    stored: Tagged
    confirmed: float
    """When it was known to be ours, by the monotonic clock."""
    is_lost: bool = False


class BlockLeases:
    """The blocks that this process holds. Use as a context manager: it renews them, and gives them back."""

    def __init__(self, location: str | Path) -> None:
        self._out = str(location)
        self._store = open_store(location, read_only=False)
        self._own = LeaseState(Holder.this(), uuid.uuid4().hex, time.time())
        self._held: dict[int, _Held] = {}
        self._watched: dict[str, tuple[bytes, float]] = {}
        """Leases of others: what was read, and since when it is the same."""
        self._advanced_at = time.monotonic()
        self._longest_step_s = 0.0
        self._guard = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="block-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for block in list(self._held):
            with suppress(Exception):  # where the store is out of reach, they end by themselves
                if time.monotonic() - self._held[block].confirmed > BEAT_S:
                    self._renew(block)  # somebody may have taken it over while this process was stopped
                self._give_back(block, self._held[block].turn)

    def advanced(self) -> None:
        """Note that a step of the work is done, however long it took: what is held goes on being renewed."""
        now = time.monotonic()
        self._longest_step_s = max(self._longest_step_s, now - self._advanced_at)
        self._advanced_at = now

    def take(self, block: int) -> bool:
        """Hold a block from now on, where nobody does who is alive; whether that is so."""
        turn = 0
        while True:
            key = block_lease_key(block, turn)
            began = time.monotonic()
            # What is known to be held is looked at first: that is one request instead of two.
            is_known = key in self._watched
            made = None if is_known else _create(self._store, key, self._state())
            if made is not None:
                self._advanced_at = time.monotonic()  # no step: this process may have waited for others
                with self._guard:
                    self._held[block] = _Held(turn, made, began)
                return self._is_still_dead(block, turn)
            seen = read_tagged(self._store, key)
            if seen is None:
                self._watched.pop(key, None)
                if not is_known:
                    return False  # given back this moment: who looks again finds it free, or committed
            elif self._is_dead(key, seen.data):
                turn += 1
            else:
                return False

    def check(self, block: int) -> None:
        """Raise :class:`LostLeaseError` where somebody else has a block by now. Call before it is written."""
        held = self._held.get(block)
        if held is not None and time.monotonic() - held.confirmed > LEASE_S / 2:
            self._renew(block)
        if held is None or held.is_lost:
            raise LostLeaseError(
                f"{self._out}: this process gave no sign of life for {_WATCH_S:.0f} s or more (was it "
                "stopped, did it hang, or was the network away?), and another one builds row block "
                f"{block} now"
            )

    def release(self, block: int) -> None:
        """Give back a block whose tiles are all committed; what dead holders left of it goes too."""
        # The earliest turn first: while our own stands, nobody takes what is gone for free.
        self._give_back(block, 0)

    def _give_back(self, block: int, first: int) -> None:
        with self._guard:
            held = self._held.pop(block)
            if not held.is_lost:
                for turn in range(first, held.turn + 1):
                    delete_object(self._store, block_lease_key(block, turn))

    def _is_still_dead(self, block: int, turn: int) -> bool:
        """Whether the holder before gave no sign while its block was taken over; else it keeps the block.

        It renews its lease and then looks for ours, we create ours and then look at its: one of us two sees
        the other, however these requests fall.
        """
        if not turn:
            return True
        key = block_lease_key(block, turn - 1)
        seen = read_bytes(self._store, key)
        if seen is None or seen == self._watched.get(key, (seen, 0.0))[0]:
            return True
        self._give_back(block, turn)
        return False

    def _is_dead(self, key: str, data: bytes) -> bool:
        state = LeaseState.read(data)
        before, since = self._watched.get(key, (b"", 0.0))
        if before != data:
            since = time.monotonic()
            self._watched[key] = (data, since)
        if state is not None and state.holder.is_gone:
            return True
        is_stale = state is None or not state.is_fresh
        return time.monotonic() - since > (_WATCH_S if is_stale else LEASE_S)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(BEAT_S):
            if not self._hangs:
                self._renew_all()

    @property
    def _hangs(self) -> bool:
        still_s = time.monotonic() - self._advanced_at
        return still_s > _HUNG_S + _STEPS * self._longest_step_s

    def _renew_all(self) -> None:
        for block in list(self._held):
            with suppress(Exception):  # out of reach for a while: whoever writes next is told
                self._renew(block)

    def _renew(self, block: int) -> None:
        with self._guard:
            held = self._held.get(block)
            if held is None or held.is_lost:
                return
            began = time.monotonic()
            renewed = self._renewed(block_lease_key(block, held.turn), held.stored)
            is_taken = read_bytes(self._store, block_lease_key(block, held.turn + 1)) is not None
            if renewed is None or is_taken:
                held.is_lost = True
            else:
                held.stored, held.confirmed = renewed, began

    def _renewed(self, key: str, known: Tagged) -> Tagged | None:
        renewed = _replaced(self._store, key, self._state(), known)
        if renewed is not None:
            return renewed
        # The answer to an earlier renewal may have been lost: what is there is ours then, and newer.
        seen = read_tagged(self._store, key)
        state = None if seen is None else LeaseState.read(seen.data)
        is_ours = state is not None and state.token == self._own.token
        return _replaced(self._store, key, self._state(), seen) if seen is not None and is_ours else None

    def _state(self) -> bytes:
        return replace(self._own, renewed=time.time()).to_bytes().ljust(_FILE_BYTES)


def leased_blocks(store: Store) -> set[int]:
    """The blocks that somebody holds, or held when it died."""
    return {block for block in map(leased_block, list_keys(store, f"{BLOCK_LEASES}/")) if block is not None}


def living_holder(store: Store) -> Holder | None:
    """One who builds row blocks there now; None where nobody does who is alive.

    It takes some seconds where somebody died on another machine: leases are then watched.
    """
    suspects = _suspects(store)
    for state in suspects.values():
        if state is not None and state.is_fresh:
            return state.holder
    if not suspects:
        return None
    time.sleep(_WATCH_S)
    changed = [state for key, state in _suspects(store).items() if suspects.get(key) != state]
    return next((state.holder for state in changed if state is not None), None)


def remove_block_leases(store: Store) -> None:
    """Remove what sharing a build left, once every tile is committed or nobody alive shares it."""
    for key in list_keys(store, f"{BLOCK_LEASES}/"):
        if leased_block(key) is not None:
            delete_object(store, key)
    root = local_root(store)
    if root is not None:
        with suppress(OSError):  # somebody else put something there, or there is no such folder
            (root / BLOCK_LEASES).rmdir()


def _suspects(store: Store) -> dict[str, LeaseState | None]:
    """The leases by key, but for those whose process is certainly gone; None for one that nobody can read."""
    keys = [key for key in list_keys(store, f"{BLOCK_LEASES}/") if leased_block(key) is not None]
    states = {
        key: LeaseState.read(data)
        for key, data in zip(keys, read_many(store, keys), strict=True)
        if data is not None
    }
    return {key: state for key, state in states.items() if state is None or not state.holder.is_gone}


def _create(store: Store, key: str, data: bytes) -> Tagged | None:
    root = local_root(store)
    if root is None:
        return create_object(store, key, data)
    while True:
        _make_folder(root)
        with suppress(FileNotFoundError):  # whoever sealed the cache, or was the last to leave, removed it
            return Tagged(data, None) if create_file(root / key, data) else None


def _make_folder(root: Path) -> None:
    try:
        (root / BLOCK_LEASES).mkdir(exist_ok=True)
    except FileNotFoundError:  # its parents are never made
        raise KDCacheError(
            f"{root} is gone: it was removed, renamed or unmounted while it was being written. Nothing is "
            "made in its place; bring it back and run the same command again"
        ) from None


def _replaced(store: Store, key: str, data: bytes, seen: Tagged) -> Tagged | None:
    root = local_root(store)
    if root is None:
        return replace_object(store, key, data, seen)
    if read_bytes(store, key) != seen.data:
        return None
    try:
        overwrite_file(root / key, data)
    except FileNotFoundError:
        return None
    return Tagged(data, None)
