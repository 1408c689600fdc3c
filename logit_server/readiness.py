"""Whether a worker can answer: what is looked at, and what to say where something is not as it must be."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from cache_builder.format import KDCacheError, StorageError
from logit_server.errors import OverloadedError
from logit_server.served_caches import Catalog
from logit_server.shelf import Slot
from logit_server.state import State
from logit_server.storage import public_error

_UNNAMED = "a cache of this server cannot be served just now; the server's log says which"
"""For those who may not know of every cache."""


class Failed(BaseModel):
    """What is not as it must be."""

    check: str
    """``caches``, ``pages``, ``limits`` or ``stopping``."""
    cache: str | None = None
    """The cache's name, where one is concerned that the sender may know of."""
    detail: str
    """What was found, and what to do."""


class NotReadyError(StorageError):
    """The server cannot answer just now as it should."""

    def __init__(self, failed: list[Failed], first: KDCacheError) -> None:
        """``first``: the error of the first of ``failed``, whose class names this one where waiting helps."""
        super().__init__("; ".join(one.detail for one in failed[:5]))
        self.members: dict[str, Any] = {"failed": [one.model_dump(exclude_none=True) for one in failed]}
        """What the answer says beside its detail."""
        if type(first) in (StorageError, OverloadedError):
            self.members["error"] = type(first).__name__


class Findings:
    """What looks found to be wrong, as one error."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None, str], tuple[Failed, KDCacheError]] = {}

    def add(self, check: str, error: KDCacheError | None, cache: str | None = None) -> None:
        """Note what a look found; None for nothing."""
        if error is not None:
            failed = Failed(check=check, cache=cache, detail=str(error))
            self._found.setdefault((check, cache, failed.detail), (failed, error))

    def require_none(self) -> None:
        """Raise :class:`NotReadyError` where anything was found."""
        if self._found:
            failed, errors = zip(*self._found.values(), strict=True)
            raise NotReadyError(list(failed), errors[0])


async def check_server(state: State, seen: Catalog) -> None:
    """Raise what keeps the whole server from answering; ``seen``: the caches that the sender may know of."""
    names = {served.name for served in seen} if seen is not state.catalog else None
    findings = await _worker(state)
    found = await state.watch.look_at_all()
    for slot in state.shelf.slots:
        problem = _public_problem(slot, found.get(slot))
        if names is None or slot.name in names:
            findings.add("caches", problem, slot.name)
        elif problem is not None:
            findings.add("caches", StorageError(_UNNAMED))
    findings.require_none()


async def check_cache(state: State, name: str) -> None:
    """Raise what keeps requests about one cache from being answered."""
    findings = await _worker(state)
    for slot in state.shelf.slots:
        if slot.name == name:
            findings.add("caches", await slot_problem(state, slot), name)
    findings.require_none()


async def slot_problem(state: State, slot: Slot, *, afresh: bool = False) -> KDCacheError | None:
    """What is wrong with the store of a slot, in words for clients, after a look at it."""
    return _public_problem(slot, await state.watch.look(slot, afresh=afresh))


def _public_problem(slot: Slot, found: KDCacheError | None) -> KDCacheError | None:
    """What is wrong with the store of a slot where a look found this."""
    if found is not None:
        return public_error(slot.name, slot.location, "its store", found)
    if slot.missing is not None:
        return slot.missing.error(slot.missing.detail)
    return None


async def _worker(state: State) -> Findings:
    """What of the worker itself is not as it must be."""
    findings = Findings()
    if state.connections.is_draining:
        findings.add(
            "stopping", OverloadedError("this worker is stopping: send requests to another one", "stopping")
        )
    findings.add("limits", state.admission.problem() or state.connections.problem())
    pages = state.running_pages
    largest = max((served.block_bytes for served in state.catalog), default=0)
    found = await pages.looks.problem("pages", lambda: pages.folder.check_room(largest))
    if found is not None:
        findings.add("pages", StorageError(f"the page folder cannot be used: {found}"))
    return findings
