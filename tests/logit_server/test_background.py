"""A task beside the requests ends with its context, and what it raises is not lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from logit_server.background import meanwhile


def test_it_runs_within_the_block_and_has_ended_after_it() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            while True:
                seen.append("turn")
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            seen.append("ended")

    async def main() -> int:
        async with meanwhile(work()):
            while len(seen) < 3:
                await asyncio.sleep(0)
            assert "ended" not in seen
        assert seen[-1] == "ended"
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


async def dies() -> None:
    raise ValueError("broken")


def test_what_it_raised_is_raised_at_the_end() -> None:
    async def main() -> None:
        async with meanwhile(dies()):
            await asyncio.sleep(0.01)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(main())


def test_what_it_raised_is_logged_while_the_block_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with meanwhile(dies()):
            await asyncio.sleep(0.01)
            logged.extend(caplog.records)

    logged: list[logging.LogRecord] = []
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(main())
    (record,) = logged
    assert "dies" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "broken"


def test_what_the_block_raises_is_not_hidden() -> None:
    async def main() -> None:
        async with meanwhile(dies()):
            await asyncio.sleep(0.01)
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        asyncio.run(main())


def test_who_is_cancelled_while_the_work_ends_is_cancelled() -> None:
    is_ending = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            is_ending.set()
            await asyncio.sleep(3600)

    async def waits() -> None:
        async with meanwhile(work()):
            await asyncio.sleep(0)  # the work begins

    async def main() -> None:
        waiting = asyncio.create_task(waits())
        await is_ending.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_work_that_is_done_early_is_no_trouble() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    async def main() -> None:
        async with meanwhile(work()):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert done == ["done"]
