"""A task beside the requests ends with its context, and what it raises is not lost."""

from __future__ import annotations

import asyncio

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


def test_what_it_raised_is_raised_at_the_end() -> None:
    async def work() -> None:
        raise ValueError("broken")

    async def main() -> None:
        async with meanwhile(work()):
            await asyncio.sleep(0.01)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(main())


def test_work_that_is_done_early_is_no_trouble() -> None:
    async def work() -> None:
        pass

    async def main() -> None:
        async with meanwhile(work()):
            await asyncio.sleep(0)

    asyncio.run(main())
