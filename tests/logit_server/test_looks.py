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
