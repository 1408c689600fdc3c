"""One builder at a time on an object store: an object that says who, and is renewed while that one lives.

It is written only where there is none, and replaced only where it is still what was read (conditional puts):
of two who reach for it one gets it. Its holder renews it every :data:`BEAT_S` seconds. Somebody else may take
it when its process is certainly gone (same machine), or when it was not renewed for :data:`LEASE_S` seconds
by the clock *and* stays as it is while one watches: clocks differ between machines. A holder that was stopped
for so long finds another version of the object, and writes no more.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from zarr.abc.store import Store

from cache_builder.format.conditional import Tagged, create_object, read_tagged, replace_object
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.locks.holder import Holder
from cache_builder.format.owned import LEASE_KEY
from cache_builder.format.store import delete_object
from cache_builder.format.waiting import patience_at_most

LEASE_S = 60.0
"""A builder that gave no sign of life for so long has lost its lease."""
BEAT_S = 10.0
"""Between two signs of life."""
_WATCH_S = 2.5 * BEAT_S
_TRIES = 5


class HeldError(ConfigError):
    """Somebody else has the output at this moment."""


@dataclass(frozen=True)
class LeaseState:
    """What the object says."""

    holder: Holder
    token: str
    """Of this holding, whoever has the same process number."""
    renewed: float
    """Seconds since 1970, by the holder's clock."""
    launch: str | None = None
    """Which launch of several processes holds it together."""
    is_ready: bool = False
    """Whether the others of the launch may write."""

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """None for what is no lease of this release: nobody can know who holds it."""
        try:
            body: dict[str, Any] = json.loads(data)
            holder = Holder.parsed(body["holder"])
            launch = None if body["launch"] is None else str(body["launch"])
            return cls(holder, str(body["token"]), float(body["renewed"]), launch, bool(body["is_ready"]))
        except (ValueError, TypeError, KeyError):
            return None

    def to_bytes(self) -> bytes:
        """The object as it is stored."""
        return json.dumps(self.__dict__ | {"holder": self.holder.__dict__}).encode()

    @property
    def is_fresh(self) -> bool:
        """Whether it was renewed of late, if the clocks agree."""
        return abs(time.time() - self.renewed) < LEASE_S


class Lease:
    """A lease that this process holds, renewed by a thread of its own until it is released."""

    def __init__(self, store: Store, out: str, launch: str | None = None) -> None:
        """Take it, or raise :class:`ConfigError` naming who has it."""
        self._store, self._out = store, out
        self._state = LeaseState(Holder.this(), uuid.uuid4().hex, time.time(), launch)
        self._guard = threading.Lock()
        self._lost: str | None = None
        # Counted from before the request, which may be repeated for long after it arrived.
        self._renewed_at = time.monotonic()
        self._held = _taken(store, out, self._state)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_ended, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise :class:`KDCacheError` where somebody else has it by now. Call before anything is written."""
        if time.monotonic() - self._renewed_at > LEASE_S / 2:
            self._renew()
        if self._lost is not None:
            raise KDCacheError(
                f"{self._out}: this process gave no sign of life for {LEASE_S:.0f} s or more (was it "
                f"stopped, or the network away?), and {self._lost} builds there now; what was committed stays"
            )

    def ready(self) -> None:
        """Tell the other processes of the launch that they may write; a process alone tells nobody."""
        if self._state.launch is not None:
            self._renew(is_ready=True)

    def release(self) -> None:
        """Give it back; where the store is out of reach, it ends by itself."""
        self._ended.set()
        self._thread.join()
        with suppress(Exception):
            # A fresh lease is taken by nobody, so that what is deleted is our own.
            if time.monotonic() - self._renewed_at > 2 * BEAT_S:
                self._renew()
            if self._lost is None:
                with patience_at_most(BEAT_S):
                    delete_object(self._store, LEASE_KEY)

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(Exception):  # out of reach for a while: whoever writes next is told
                self._renew()

    def _renew(self, is_ready: bool = False) -> None:
        with self._guard:
            if self._lost is not None:
                return
            began = time.monotonic()
            self._state = replace(self._state, renewed=time.time(), is_ready=is_ready or self._state.is_ready)
            held = replace_object(self._store, LEASE_KEY, self._state.to_bytes(), self._held)
            if held is None:
                found = read_state(self._store)
                self._lost = "another process" if found is None else str(found.holder)
                return
            self._held, self._renewed_at = held, began


def read_state(store: Store) -> LeaseState | None:
    """Who builds there now, as far as the object says; None where nobody does."""
    seen = read_tagged(store, LEASE_KEY)
    return None if seen is None else LeaseState.read(seen.data)


def _taken(store: Store, out: str, own: LeaseState) -> Tagged:
    for _ in range(_TRIES):
        own = replace(own, renewed=time.time())
        held = create_object(store, LEASE_KEY, own.to_bytes())
        if held is not None:
            return held
        seen = read_tagged(store, LEASE_KEY)
        if seen is None:
            continue  # it was given back just now
        _refuse_living(store, out, seen)
        held = replace_object(store, LEASE_KEY, own.to_bytes(), seen)
        if held is not None:
            return held
    raise HeldError(f"{out} is being built by others that start at the same time: try again")


def _refuse_living(store: Store, out: str, seen: Tagged) -> None:
    """Return where the holder of a lease is dead; :class:`ConfigError` where it lives or nobody can know."""
    state = LeaseState.read(seen.data)
    if state is not None and state.holder.is_gone:
        return
    if state is None or not state.is_fresh:
        until = time.monotonic() + _WATCH_S
        while time.monotonic() < until:
            time.sleep(min(1.0, _WATCH_S))
            if read_tagged(store, LEASE_KEY) != seen:
                break
        else:
            return
    holder = "another process" if state is None else str(state.holder)
    raise HeldError(
        f"{out} is being built by {holder}: wait for it or stop it, or choose another --out. If it died, the "
        f"same command goes on {LEASE_S:.0f} s after its last sign of life"
    )
