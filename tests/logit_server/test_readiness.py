import asyncio
import threading
from pathlib import Path

import pytest

from logit_server import looks
from logit_server.page_folder import PageFolder
from logit_server.pages import Pages
from logit_server.readiness import NotReadyError, check_server
from logit_server.settings import Settings
from logit_server.shelf import Shelf, Slot, open_slot
from logit_server.sources_of_caches import Source
from logit_server.state import State


def state_of(folder: Path, *slots: Slot) -> State:
    """The state of a worker with these slots."""
    settings = Settings(caches=tuple(slot.location for slot in slots))
    shelf = Shelf(slots)
    state = State(settings, shelf.catalog(), known=shelf)
    state.pages = Pages(PageFolder(folder / "pages", 2**30))
    return state


def test_a_cache_that_leaves_the_list_during_a_look_is_no_failure(
    own_cache: Path, odd_path: Path, tmp_path: Path
) -> None:
    stays, opened = (open_slot(Source(None, str(path)), 2**30) for path in (own_cache, odd_path))

    async def check() -> None:
        loop = asyncio.get_running_loop()

        class Leaving(Slot):
            def look(self) -> None:
                loop.call_soon_threadsafe(state.shelf.drop, [self])

        state = state_of(tmp_path, stays, Leaving(opened.name, opened.location, opened.current))
        await check_server(state, state.catalog)
        assert state.shelf.slots == [stays]

    asyncio.run(check())


def test_pages_are_looked_at_while_every_store_hangs(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "LOOK_S", 1)
    monkeypatch.setattr(looks, "_THREADS", 1)
    begun, goes_on = threading.Event(), threading.Event()

    class Hanging(Slot):
        def look(self) -> None:
            begun.set()
            goes_on.wait()

    async def check() -> None:
        state = state_of(tmp_path, Hanging("a", str(own_cache)), Hanging("b", str(own_cache)))
        hanging = asyncio.create_task(state.watch.look_at_all())
        await asyncio.to_thread(begun.wait, 60)
        with pytest.raises(NotReadyError) as caught:
            await check_server(state, state.catalog)
        assert {one["check"] for one in caught.value.members["failed"]} == {"caches"}
        await hanging
        goes_on.set()

    asyncio.run(check())
