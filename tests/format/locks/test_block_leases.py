"""Row blocks have one builder each, whatever becomes of it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.locks import block_leases as module
from cache_builder.format.locks.block_leases import (
    BlockLeases,
    LostLeaseError,
    leased_blocks,
    living_holder,
    remove_block_leases,
)
from cache_builder.format.locks.holder import Holder
from cache_builder.format.locks.lease import LEASE_S, LeaseState
from cache_builder.format.locks.lock import SHARED, claimed
from cache_builder.format.owned import block_lease_key
from cache_builder.format.store import list_keys, open_store, write_durably
from tests.object_store import BUCKET, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as client:
        yield client


@pytest.fixture(params=["s3", "disk"])
def out(request: pytest.FixtureRequest, s3: Any, tmp_path: Path) -> str:
    """A store in which nothing is leased."""
    if request.param == "s3":
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"
    (tmp_path / "a.zarr").mkdir()
    return str(tmp_path / "a.zarr")


def keys(out: str) -> list[str]:
    return list_keys(open_store(out, read_only=True), "")


def elsewhere() -> Holder:
    return replace(Holder.this(), pid=17, host="far", machine="another")


def left(out: str, holder: Holder, age_s: float = 0, turn: int = 0, block: int = 3) -> None:
    """The lease of a builder whose last sign of life was so long ago."""
    state = LeaseState(holder, "token", time.time() - age_s)
    write_durably(open_store(out, read_only=False), block_lease_key(block, turn), state.to_bytes())


def dead() -> Holder:
    """A process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return replace(Holder.this(), pid=ended.pid)


def test_a_block_has_one_holder_and_comes_back(out: str) -> None:
    with BlockLeases(out) as one, BlockLeases(out) as two:
        assert one.take(3)
        assert not two.take(3)
        assert two.take(4)
        assert leased_blocks(open_store(out, read_only=True)) == {3, 4}
        one.check(3)
        one.release(3)
        assert two.take(3)
    assert keys(out) == []


def test_of_many_who_reach_for_a_block_one_gets_it(out: str) -> None:
    everyone = [BlockLeases(out) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for block in range(4):
            assert sum(pool.map(lambda leases, block=block: leases.take(block), everyone)) == 1


def test_a_dead_one_of_this_machine_is_followed_at_once(out: str) -> None:
    left(out, dead())
    left(out, dead(), turn=1)
    with BlockLeases(out) as leases:
        assert leases.take(3)
        assert block_lease_key(3, 2) in keys(out)
        leases.release(3)
    assert keys(out) == []


def test_a_silent_one_elsewhere_is_watched_first(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the watcher's own clock; sooner where the clocks of both say that it is silent."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for block, age_s, needed_s in ((3, 0, LEASE_S), (4, 2 * LEASE_S, module._WATCH_S)):
        left(out, elsewhere(), age_s, block=block)
        leases = BlockLeases(out)
        assert not leases.take(block)
        now[0] += needed_s - 1
        assert not leases.take(block)
        now[0] += 2
        assert leases.take(block)


def test_one_that_gives_a_sign_keeps_its_block(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    leases = BlockLeases(out)
    for age_s in (100, 90, 80):
        left(out, elsewhere(), age_s)
        assert not leases.take(3)
        now[0] += 100


def test_a_sign_in_the_very_moment_of_the_takeover(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder renews its lease after the other one looked, and before that one has its own."""
    left(out, dead())
    create = module._create

    def renewed_meanwhile(*arguments: Any) -> Any:
        made = create(*arguments)
        if made is not None:
            left(out, elsewhere(), age_s=1)
        return made

    monkeypatch.setattr(module, "_create", renewed_meanwhile)
    leases = BlockLeases(out)
    assert not leases.take(3)
    assert keys(out) == [block_lease_key(3, 0)]


def test_who_was_followed_writes_no_more_and_takes_nothing_away(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BlockLeases(out) as leases:
        leases.take(3)
        left(out, elsewhere(), turn=1)
        monkeypatch.setattr(module.time, "monotonic", lambda: 1e12)
        with pytest.raises(LostLeaseError, match="another one builds row block 3"):
            leases.check(3)
        before = keys(out)
    assert keys(out) == before


def test_what_was_taken_away_is_not_renewed(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache was sealed while its holder slept: no lease may come back."""
    with BlockLeases(out) as leases:
        leases.take(3)
        remove_block_leases(open_store(out, read_only=False))
        monkeypatch.setattr(module.time, "monotonic", lambda: 1e12)
        with pytest.raises(LostLeaseError):
            leases.check(3)
    assert keys(out) == []


def test_a_renewal_whose_answer_was_lost_is_no_loss(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = module._replaced

    def answerless(*arguments: Any) -> Any:
        replaced(*arguments)
        raise OSError("the network went away")

    with BlockLeases(out) as leases:
        leases.take(3)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_replaced", answerless)
            with pytest.raises(OSError, match="went away"):
                leases._renew(3)
        leases._renew(3)
        leases.check(3)
    assert keys(out) == []


def test_it_is_renewed_while_its_holder_lives(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with BlockLeases(out) as leases:
        leases.take(3)
        before = seen = leases._held[3].stored
        while seen == before:
            time.sleep(0.01)
            seen = leases._held[3].stored
        leases.check(3)


def test_work_that_stands_still_keeps_no_block(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    leases = BlockLeases(out)
    now[0] += 1e6  # it waited for others
    assert leases.take(3)

    def hangs_after(seconds: float) -> bool:
        now[0] += seconds
        return leases._hangs

    limit_s = module._HUNG_S
    assert not hangs_after(limit_s - 1)
    assert hangs_after(2)
    leases.advanced()  # slow, then, and not hung: its steps are given more time
    assert not hangs_after(limit_s + module._STEPS * limit_s)
    assert hangs_after(limit_s)
    leases.advanced()
    assert not leases._hangs


def test_another_takes_the_block_of_one_that_hangs(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT_S": 0.01, "LEASE_S": 0.5, "_WATCH_S": 0.5, "_HUNG_S": 1e9}.items():
        monkeypatch.setattr(module, name, value)
    with BlockLeases(out) as hung, BlockLeases(out) as other:
        assert hung.take(3)
        assert not other.take(3)
        monkeypatch.setattr(module, "_HUNG_S", -1.0)
        while not other.take(3):
            time.sleep(0.01)
        hung._renew(3)
        with pytest.raises(LostLeaseError, match="did it hang"):
            hung.check(3)
        other.release(3)


def test_a_lone_builder_is_refused_by_those_who_share(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WATCH_S", 0.05)
    left(out, elsewhere())
    with pytest.raises(ConfigError, match=r"built with --share by process 17 on far"), claimed(out):
        pass
    with claimed(out, SHARED):
        pass
    left(out, elsewhere(), age_s=2 * LEASE_S)
    left(out, dead(), turn=1)
    with claimed(out):
        pass


def test_a_holder_whose_clock_is_wrong_but_who_lives(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left(out, elsewhere(), age_s=2 * LEASE_S)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: left(out, elsewhere(), age_s=LEASE_S))
    assert living_holder(open_store(out, read_only=True)) == elsewhere()


def test_nothing_of_others_is_removed(out: str) -> None:
    store = open_store(out, read_only=False)
    left(out, elsewhere())
    write_durably(store, ".kdcache-leases/photo.jpg", b"precious")
    remove_block_leases(store)
    assert keys(out) == [".kdcache-leases/photo.jpg"]


def test_a_store_that_went_away_is_not_made_again(tmp_path: Path) -> None:
    with BlockLeases(tmp_path / "a.zarr") as leases, pytest.raises(KDCacheError, match="is gone"):
        leases.take(0)
    assert list(tmp_path.iterdir()) == []
