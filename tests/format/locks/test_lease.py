"""One builder at a time on an object store, whatever becomes of it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.locks import lease as module
from cache_builder.format.locks.holder import Holder
from cache_builder.format.locks.lease import LEASE_S, Lease, LeaseState
from cache_builder.format.locks.lock import claimed
from cache_builder.format.owned import LEASE_KEY
from cache_builder.format.store import list_keys, open_store, read_bytes, write_durably
from tests.object_store import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture(params=["s3", "memory"])
def out(request: pytest.FixtureRequest, s3: Any) -> str:
    """A prefix where nothing is, on a store with conditional puts and on one with exclusive creation."""
    name = uuid.uuid4().hex
    return f"s3://{BUCKET}/{name}" if request.param == "s3" else f"memory://{name}"


def elsewhere(**changes: Any) -> Holder:
    return replace(Holder.this(), **({"pid": 17, "host": "far", "machine": "another"} | changes))


def left(out: str, holder: Holder, age_s: float) -> None:
    """The lease of a builder whose last sign of life was so long ago."""
    store = open_store(out, read_only=False)
    write_durably(store, LEASE_KEY, LeaseState(holder, "token", time.time() - age_s).to_bytes())


def test_one_at_a_time_and_nothing_is_left(out: str) -> None:
    for _ in range(2):
        with claimed(out) as hold:
            hold.check()
            with pytest.raises(ConfigError, match=rf"is being built by {Holder.this()}: wait"), claimed(out):
                pass
            hold.check()
        assert list_keys(open_store(out, read_only=True), "") == []


def test_a_living_builder_elsewhere_is_named(out: str) -> None:
    left(out, elsewhere(), age_s=LEASE_S / 2)
    with pytest.raises(ConfigError, match=r"is being built by process 17 on far: .* goes on 60 s after"):
        Lease(open_store(out, read_only=False), out)


TAKEN_OVER = ([LEASE_KEY], [])
"""The lease is held, and gone afterwards."""


def take_over(out: str) -> tuple[list[str], list[str]]:
    """Take the lease in spite of what is there; returns what lies there while it is held, and afterwards."""
    store = open_store(out, read_only=True)
    with claimed(out) as hold:
        hold.check()
        held = list_keys(store, "")
    return held, list_keys(store, "")


def test_a_dead_one_of_this_machine_does_not_wait(out: str) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left(out, replace(Holder.this(), pid=ended.pid), age_s=0)
    assert take_over(out) == TAKEN_OVER


def test_a_process_number_that_was_used_again_is_another_process(out: str) -> None:
    left(out, replace(Holder.this(), started="1"), age_s=0)
    assert take_over(out) == TAKEN_OVER


@pytest.mark.parametrize("age_s", [LEASE_S + 1, -LEASE_S - 1], ids=["old", "of the future"])
def test_one_that_gives_no_sign_is_taken_over(
    out: str, monkeypatch: pytest.MonkeyPatch, age_s: float
) -> None:
    """By the clock, which may be wrong, and by watching."""
    monkeypatch.setattr(module, "_WATCH_S", 0.05)
    left(out, elsewhere(), age_s)
    assert take_over(out) == TAKEN_OVER


def test_one_whose_clock_is_wrong_but_who_lives(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left(out, elsewhere(), LEASE_S + 1)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: left(out, elsewhere(), LEASE_S))
    with pytest.raises(ConfigError, match="process 17 on far"):
        Lease(open_store(out, read_only=False), out)


def test_a_lease_that_nobody_can_read_is_watched(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WATCH_S", 0.05)
    write_durably(open_store(out, read_only=False), LEASE_KEY, b"what?")
    assert take_over(out) == TAKEN_OVER


def test_who_lost_it_writes_no_more_and_leaves_the_other_in_peace(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a laptop's sleep: somebody else took it meanwhile."""
    store = open_store(out, read_only=False)
    first = Lease(store, out)
    left(out, elsewhere(), 0)
    theirs = read_bytes(store, LEASE_KEY)
    monkeypatch.setattr(module.time, "monotonic", lambda: 1e12)
    with pytest.raises(KDCacheError, match=r"no sign of life .*process 17 on far builds there now"):
        first.check()
    first.release()
    assert read_bytes(store, LEASE_KEY) == theirs


def test_it_is_renewed_while_its_holder_lives(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    store = open_store(out, read_only=False)
    with claimed(out):
        before, seen = read_bytes(store, LEASE_KEY), read_bytes(store, LEASE_KEY)
        while seen == before:
            seen = read_bytes(store, LEASE_KEY)
        assert seen is not None


def test_readiness_survives_renewal(out: str) -> None:
    store = open_store(out, read_only=False)
    with claimed(out, launch="a") as hold:
        hold.ready()
        hold.check()
        state = module.read_state(store)
        assert state is not None
        assert (state.launch, state.is_ready) == ("a", True)
