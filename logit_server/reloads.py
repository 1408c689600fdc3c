"""Reading the list of caches again: what is new is opened, what left the list is served no longer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel
from starlette.requests import Request

from cache_builder.format import ConfigError, KDCacheError, StorageError
from logit_server.readiness import slot_problem
from logit_server.roster import Reread
from logit_server.settings import Settings
from logit_server.shelf import Slot, open_slot
from logit_server.sources_of_caches import Source, is_folder_of_caches, sources, split_name
from logit_server.state import State
from logit_server.storage import public_error
from logit_server.wishes import Wishes

WISHES_S = 0.5
"""Seconds between two looks whether somebody wished that the list is read again."""

logger = logging.getLogger("logit_server")


class Refused(BaseModel):
    """What is on the list and could not be taken, or not be read just now."""

    cache: str
    """Its name on this server, or that of its folder."""
    detail: str
    """What was found, and what to do."""


class Reloaded(BaseModel):
    """What reading the list again changed, by the names of the caches."""

    added: list[str] = []
    removed: list[str] = []
    extended: list[str] = []
    """Served by a new cache_id; the old one stays served by its id."""
    replaced: list[str] = []
    """Served by a new cache_id; the old one is not served any more."""
    unchanged: list[str] = []
    refused: list[Refused] = []
    """What was served before stays served as it is."""
    needs_restart: list[str] = []
    """Other settings that changed in their file: they hold after a restart."""


class Reloads:
    """Of one worker; lives on its event loop."""

    def __init__(self, state: State, reread: Reread) -> None:
        self._state = state
        self._reread = reread
        self._lock = asyncio.Lock()
        self._wishes: Wishes | None = None
        self._granted = 0

    async def wish(self) -> Reloaded:
        """Let every worker of the run read the list again; this one has when the call returns."""
        if self._wishes is not None:
            self._wishes.add()
        return await self.reload()

    async def catch_up(self) -> None:
        """Read the list again, if another worker was told to and this one has not heard yet."""
        if self._wishes is not None and self._wishes.count() > self._granted:
            await self.reload()

    async def reload(self) -> Reloaded:
        """Read the list again. What is wrong with it is told in the answer, and changes nothing."""
        async with self._lock:
            if self._wishes is not None:
                self._granted = self._wishes.count()
            done = await self._reloaded()
        logger.warning("the list of caches was read again: %s", done.model_dump_json(exclude_defaults=True))
        return done

    async def _reloaded(self) -> Reloaded:
        done = Reloaded()
        state = self._state
        await asyncio.to_thread(state.access.tokens.reread)
        try:
            settings, wanted = await asyncio.to_thread(self._listed)
        except (KDCacheError, OSError):
            logger.exception("the list of caches could not be read again")
            detail = "the list could not be read again, and holds as it was; the server's log says why"
            done.refused.append(Refused(cache="", detail=detail))
            settings, wanted = state.settings, None
        before = {slot: slot.current.cache_id if slot.current else None for slot in state.shelf.slots}
        if wanted is not None:
            await self._match(settings, wanted, done)
        for slot, cache_id in before.items():
            if slot in state.shelf.slots:
                await self._look(slot, cache_id, done)
        if done.added or done.removed:
            state.serve(state.shelf.catalog())
        done.needs_restart = sorted(_differing(state.settings, settings))
        return done

    def _listed(self) -> tuple[Settings, list[Source]]:
        settings = self._reread()
        return settings, list(sources(settings.caches))

    async def _match(self, settings: Settings, wanted: Iterable[Source], done: Reloaded) -> None:
        """Open what is new on the list, and let go of what is not on it any more."""
        left = list(self._state.shelf.slots)
        for source in wanted:
            found = next((slot for slot in left if _is_of(source, slot)), None)
            if found is not None:
                left.remove(found)
            else:
                await self._add(source, done)
        gone = await asyncio.to_thread(
            lambda: [slot for slot in left if not _may_be_away(slot, settings.caches)]
        )
        self._state.shelf.drop(gone)
        done.removed += [slot.name for slot in gone]

    async def _add(self, source: Source, done: Reloaded) -> None:
        label = source.name or Path(source.location).name
        try:
            slot = await asyncio.to_thread(open_slot, source, self._state.settings.page_bytes)
            self._state.shelf.add(slot)
        except (KDCacheError, OSError) as error:
            logger.error("left out of what is served: %s", error)
            done.refused.append(Refused(cache=label, detail=_public(label, source.location, error)))
        else:
            done.added.append(slot.name)

    async def _look(self, slot: Slot, before: str | None, done: Reloaded) -> None:
        problem = await slot_problem(self._state, slot, afresh=True)
        if problem is not None:
            done.refused.append(Refused(cache=slot.name, detail=str(problem)))
        elif slot.current is None or slot.current.cache_id == before:
            done.unchanged.append(slot.name)
        elif before in {served.cache_id for served in slot.former}:
            done.extended.append(slot.name)
        else:
            done.replaced.append(slot.name)

    @contextlib.asynccontextmanager
    async def running(self, wishes: Wishes) -> AsyncIterator[None]:
        """Grant the wishes of a run for as long as the context lasts."""
        self._wishes, self._granted = wishes, wishes.count()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WISHES_S)
            try:
                await self.catch_up()
            except Exception:  # who ended here would never hear of another wish
                logger.exception("the list of caches could not be read again")


def reloads_of(request: Request) -> Reloads:
    """What reads the list again for the running application."""
    reloads: Reloads = request.app.state.reloads
    return reloads


def _is_of(source: Source, slot: Slot) -> bool:
    return source.location == slot.location and source.name in (None, slot.name)


def _may_be_away(slot: Slot, items: Iterable[str]) -> bool:
    """Whether the folder of caches that a cache was found in has none: its disk may be missing."""
    folders = (split_name(item)[1] for item in items)
    folder = str(Path(slot.location).parent)
    return any(Path(one) == Path(folder) for one in folders) and not is_folder_of_caches(folder)


def _public(name: str, location: str, error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error).replace(location, f"cache {name!r}")
    raised = error if isinstance(error, KDCacheError) else StorageError("it could not be read")
    return str(public_error(name, location, "its store", raised))


def _differing(running: Settings, read: Settings) -> Iterator[str]:
    for name in type(running).model_fields:
        if name != "caches" and getattr(running, name) != getattr(read, name):
            yield name
