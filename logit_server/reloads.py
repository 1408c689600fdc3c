"""Reading the list of caches again: what is new is opened, what left the list is served no longer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from starlette.requests import Request

from cache_builder.format import ConfigError, KDCacheError
from cache_builder.format.extension import Earlier
from logit_server.background import meanwhile
from logit_server.list_of_caches import ListOfCaches
from logit_server.log import tell
from logit_server.looks import LOOK_S, Looks
from logit_server.readiness import slot_problem
from logit_server.roster import Reread
from logit_server.settings import Settings
from logit_server.shelf import NameTakenError, Slot, open_slot
from logit_server.sources_of_caches import Source, sources
from logit_server.state import State
from logit_server.storage import public_error
from logit_server.wishes import Wishes

WISHES_S = 0.5
"""Seconds between two looks whether somebody wished that the list is read again."""

OPEN_S = 60.0
"""Seconds that a cache may take to be opened: what hangs is looked at again by the next reload."""

_OPENED_AT_ONCE = 8

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
        self._looks = Looks()
        """Not the event loop's threads: a disk that hangs would keep the loop from ending."""
        self._openings = asyncio.Semaphore(_OPENED_AT_ONCE)
        self._next: asyncio.Task[Reloaded] | None = None
        """The reload that waits for the running one to end."""
        self._wishes: Wishes | None = None
        self._granted = 0

    async def wish(self) -> Reloaded:
        """Let every worker of the run read the list again; this one has when the call returns."""
        if self._wishes is not None:
            self._wishes.add()
        return await self.reload()

    async def catch_up(self) -> None:
        """Read the list again, if that was asked of another worker and this one has not done so yet."""
        # Fewer than before, where somebody emptied the folder: then nobody knows what was wished.
        if self._wishes is not None and self._wishes.count() != self._granted:
            await self.reload()

    async def reload(self) -> Reloaded:
        """Read the list again. The answer says what is wrong with it; that changes nothing.

        Who calls while a reload runs shares the next one with all others who do: many calls cost no more.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._in_turn())
        return await asyncio.shield(self._next)

    async def _in_turn(self) -> Reloaded:
        async with self._lock:
            self._next = None  # who calls from now on may know of what this one does not see any more
            if self._wishes is not None:
                self._granted = self._wishes.count()
            done = await self._reloaded()
        said = done.model_dump(exclude_defaults=True)
        tell(logging.INFO, "reloaded", "the list of caches was read again: %s", json.dumps(said), **said)
        return done

    async def _reloaded(self) -> Reloaded:
        done = Reloaded()
        state = self._state
        try:
            await self._looks.result("tokens", state.access.tokens.reread, LOOK_S)
            settings, wanted = await self._looks.result("list", self._listed, OPEN_S)
        except KDCacheError:
            logger.exception("the list of caches could not be read again")
            detail = "the list could not be read again, and holds as it was; the server's log says why"
            done.refused.append(Refused(cache="", detail=detail))
            settings, wanted = state.settings, None
        slots = state.shelf.slots
        before = {slot: slot.current.cache_id if slot.current else None for slot in slots}
        if wanted is not None:
            await self._match(settings, wanted, done)
        kept = [slot for slot in slots if slot in state.shelf.slots]
        problems = await asyncio.gather(*(slot_problem(state, slot, afresh=True) for slot in kept))
        for slot, problem in zip(kept, problems, strict=True):
            _report(slot, problem, before[slot], done)
        if state.shelf.slots != slots:
            state.serve(state.shelf.catalog())
        done.needs_restart = sorted(_differing(state.settings, settings))
        return done

    def _listed(self) -> tuple[Settings, list[Source]]:
        settings = self._reread()
        return settings, list(sources(settings.caches))

    async def _match(self, settings: Settings, wanted: Iterable[Source], done: Reloaded) -> None:
        """Open what is new on the list, and let go of what is not on it any more."""
        new, leaving = ListOfCaches(settings.caches, wanted).differences(self._state.shelf.slots)
        if new:
            left = [served.cache for slot in leaving for served in slot.caches()]
            earlier = await asyncio.to_thread(Earlier, left)
            opened = await asyncio.gather(*(self._opened(source, earlier) for source in new))
            # First what could be opened: it may take the place of what another one would keep.
            pairs = sorted(zip(new, opened, strict=True), key=lambda pair: isinstance(pair[1], KDCacheError))
            for source, slot in pairs:
                self._add(source, slot, leaving, done)
        self._state.shelf.drop(leaving)
        self._state.watch.forget(leaving)
        done.removed += [slot.name for slot in leaving]

    async def _opened(self, source: Source, earlier: Earlier) -> Slot | KDCacheError:
        page_bytes = self._state.settings.page_bytes
        async with self._openings:
            try:
                opening = partial(_open, source, page_bytes, earlier)
                slot: Slot = await self._looks.result(source, opening, OPEN_S)
            except KDCacheError as error:
                return error
        self._looks.forget(source)
        return slot

    def _add(self, source: Source, slot: Slot | KDCacheError, leaving: list[Slot], done: Reloaded) -> None:
        """Serve what was opened. Where that failed, what it was to take the place of stays what it is."""
        label = source.name or Path(source.location).name
        try:
            if isinstance(slot, KDCacheError):
                raise slot
            before = self._state.shelf.add(slot, leaving)
        except KDCacheError as error:
            logger.error("left out of what is served: %s", error)
            done.refused.append(Refused(cache=label, detail=_public(label, source.location, error)))
            leaving[:] = [other for other in leaving if not _may_follow(source, other)]
            return
        if before is None:
            done.added.append(slot.name)
            return
        leaving.remove(before)
        self._state.watch.forget([before])
        before_id = before.current.cache_id if before.current else None
        if before_id == slot.known[-1]:
            done.unchanged.append(slot.name)
        elif before_id in {served.cache_id for served in slot.former}:
            done.extended.append(slot.name)
        else:
            done.replaced.append(slot.name)

    @contextlib.asynccontextmanager
    async def running(self, wishes: Wishes) -> AsyncIterator[None]:
        """Grant the wishes of a run for as long as the context lasts."""
        self._wishes, self._granted = wishes, wishes.count()
        async with meanwhile(self._run()):
            yield

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


def _report(slot: Slot, problem: KDCacheError | None, before: str | None, done: Reloaded) -> None:
    """Say what became of a cache that was served as ``before``."""
    if problem is not None:
        done.refused.append(Refused(cache=slot.name, detail=str(problem)))
    elif slot.current is None or slot.current.cache_id == before:
        done.unchanged.append(slot.name)
    elif before in {served.cache_id for served in slot.former}:
        done.extended.append(slot.name)
    else:
        done.replaced.append(slot.name)


def _open(source: Source, page_bytes: int, earlier: Earlier) -> Slot:
    """The cache of a source, with those of ``earlier`` that were moved there and extended."""
    slot = open_slot(source, page_bytes)
    slot.succeed(earlier)
    return slot


def _may_follow(source: Source, slot: Slot) -> bool:
    """Whether a cache that could not be opened may be the one that was served until now, at a new place."""
    if source.name is not None:
        return source.name == slot.name
    return Path(source.location).name in (slot.name, Path(slot.location).name)


def _public(name: str, location: str, error: KDCacheError) -> str:
    if isinstance(error, NameTakenError):
        return error.public
    if isinstance(error, ConfigError):
        return str(error).replace(location, f"cache {name!r}")
    return str(public_error(name, location, "its store", error))


def _differing(running: Settings, read: Settings) -> Iterator[str]:
    for name in type(running).model_fields:
        if name != "caches" and getattr(running, name) != getattr(read, name):
            yield name
