import asyncio
import threading

import pytest

from cache_builder.format import StorageError
from logit_server import looks
from logit_server.looks import Looks


def test_who_asks_at_the_same_time_or_soon_after_shares_a_look() -> None:
    count = 0

    def look() -> None:
        nonlocal count
        count += 1

    async def ask() -> None:
        all_looks = Looks()
        assert await asyncio.gather(*(all_looks.problem("a", look) for _ in range(10))) == [None] * 10
        assert await all_looks.problem("a", look) is None
        assert count == 1
        assert await all_looks.problem("a", look, afresh=True) is None
        assert await all_looks.problem("b", look) is None
        assert count == 3

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageError("away"), "away"),
        (PermissionError(13, "Permission denied", "/secret/path"), "Permission denied"),
        (ZeroDivisionError(), "could not be looked at"),
    ],
)
def test_what_a_look_raises_is_told(error: Exception, said: str) -> None:
    def look() -> None:
        raise error

    found = asyncio.run(Looks().problem("a", look))
    assert said in str(found)
    assert "/secret" not in str(found)


def test_a_look_that_hangs_keeps_nobody_waiting_twice_and_no_other_one_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "LOOK_S", 0.1)
    goes_on, hanging = threading.Event(), []

    def hang() -> None:
        hanging.append("hangs")
        goes_on.wait(30)

    async def ask() -> None:
        all_looks = Looks()
        for _ in range(3):
            assert "did not answer" in str(await all_looks.problem("a", hang))
        assert await all_looks.problem("b", lambda: None) is None
        assert hanging == ["hangs"]
        goes_on.set()
        while await all_looks.problem("a", hang) is not None:
            await asyncio.sleep(0.01)

    asyncio.run(ask())


def test_many_looks_are_made_by_a_few_threads() -> None:
    before, most = threading.active_count(), 0

    def look() -> None:
        nonlocal most
        most = max(most, threading.active_count() - before)

    async def ask() -> None:
        all_looks = Looks()
        found = await asyncio.gather(*(all_looks.problem(str(key), look) for key in range(1000)))
        assert found == [None] * 1000

    asyncio.run(ask())
    assert 1 <= most <= 40


def test_looks_that_hang_keep_no_other_one_from_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LOOK_S", 0.2)
    monkeypatch.setattr(looks, "_THREADS", 2)
    goes_on = threading.Event()

    async def ask() -> None:
        all_looks = Looks()
        for _ in range(2):
            hanging = [all_looks.problem(key, goes_on.wait) for key in range(5)]
            assert all("did not answer" in str(found) for found in await asyncio.gather(*hanging))
            for key in range(5):  # those that waited for a thread have one by now
                assert "did not answer" in str(await all_looks.problem(key, goes_on.wait))
        monkeypatch.setattr(looks, "LOOK_S", 60)
        assert await all_looks.problem("healthy", lambda: None) is None
        goes_on.set()

    asyncio.run(ask())


def test_a_look_may_give_something() -> None:
    async def ask() -> None:
        all_looks = Looks()
        assert await all_looks.result("a", lambda: 5, 60) == 5
        assert await all_looks.result("a", lambda: 6, 60) == 6
        with pytest.raises(StorageError, match="Permission denied"):
            await all_looks.result("a", _denied, 60)

    asyncio.run(ask())


def _denied() -> None:
    raise PermissionError(13, "Permission denied")
