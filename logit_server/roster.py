"""What the workers of a run know of its caches, in the page folder: for one that takes a dead one's place.

It starts also while a store is away, and goes on with caches that were extended since the run began.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache_builder.format import KDCacheError, StorageError
from logit_server.private_folder import make_private
from logit_server.served_caches import Missing, ServedCache
from logit_server.settings import Settings
from logit_server.shelf import Shelf, Slot, open_shelf
from logit_server.sources_of_caches import Source
from logit_server.wishes import Wishes

Reread = Callable[[], Settings]
"""Reads the settings anew from where they came."""

_NAME = "served.json"


class Roster:
    """The file of a run. Every worker writes what it knows; they all know the same, sooner or later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def write(self, shelf: Shelf) -> None:
        """Keep what is served, and the caches that were before and still are by their ids."""
        # Only what takes the place of a dead worker misses what could not be written.
        with self._lock, contextlib.suppress(OSError):
            make_private(self._folder)
            for slot in shelf.slots:
                for served in (*slot.apart, *slot.former):
                    self._keep(served)
            slots = [
                {
                    "name": slot.name,
                    "location": slot.location,
                    "known": slot.known,
                    "former": [served.cache_id for served in slot.former],
                }
                for slot in shelf.slots
            ]
            self._replace(_NAME, {"slots": slots})
            known = {_file_of(cache_id) for slot in shelf.slots for cache_id in slot.known}
            for kept in self._folder.glob(_file_of("*")):
                if kept.name not in known:
                    kept.unlink(missing_ok=True)

    def restore(self, shelf: Shelf) -> None:
        """Give slots that were opened just now what was known of their places before."""
        known = {(item["name"], item["location"]): item for item in self._read(_NAME).get("slots", [])}
        for slot in shelf.slots:
            item = known.get((slot.name, slot.location))
            if item is None or slot.current is None:
                continue
            slot.known = [*(one for one in item["known"] if one not in slot.known), *slot.known]
            for cache_id in (*item["former"], *item["known"]):
                if kept := self._read(_file_of(cache_id)):
                    slot.inherit(kept["body"], {key: text.encode() for key, text in kept["commits"].items()})

    def away(self, source: Source) -> Slot | None:
        """What stands for a cache that cannot be opened just now and that was served before."""
        for item in self._read(_NAME).get("slots", []):
            if source.location == item["location"] and source.name in (None, item["name"]):
                return Slot(
                    item["name"], item["location"], known=item["known"], missing=missing(item["name"])
                )
        return None

    def _keep(self, served: ServedCache) -> None:
        if not (self._folder / _file_of(served.cache_id)).exists():
            commits = zip(
                (tile.key for tile in served.cache.tiles), served.cache.commits_as_stored(), strict=True
            )
            texts = {key: data.decode() for key, data in commits}
            self._replace(_file_of(served.cache_id), {"body": served.cache.body, "commits": texts})

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        making = self._folder / f"{name}.{os.getpid()}"
        making.write_text(json.dumps(content), "utf-8")
        making.replace(self._folder / name)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / name).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found


def _file_of(cache_id: str) -> str:
    return f"former-{cache_id}.json"


def missing(name: str) -> Missing:
    """What to say of a cache that was served and cannot be opened."""
    state = (
        "cannot be opened: its store is out of reach or is being written just now; it is served again as "
        "soon as it is whole and back"
    )
    return Missing(name, StorageError, f"cache {name!r} {state}", state)


def shelf_of_run(settings: Settings, run: Path | None, reread: Reread | None = None) -> Shelf:
    """Open every cache of the settings; see :func:`open_shelf`. ``run``: the page folder of a run.

    Where that goes on already, no cache keeps a worker from starting: what was served before is looked for
    again and again. If the list was read again since it began, ``reread`` gives the one that holds.
    """
    if run is None:
        return open_shelf(settings)
    if reread is not None and Wishes(run).count():
        with contextlib.suppress(KDCacheError):
            settings = settings.model_copy(update={"caches": reread().caches})
    roster = Roster(run)
    shelf = open_shelf(settings, roster.away)
    roster.restore(shelf)
    return shelf
