"""The application: a function of its settings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from cache_builder.format.wire import CACHES_PATH
from logit_server.at_once import Shortcut
from logit_server.board import Board
from logit_server.compression import Compressed
from logit_server.connections import CONNECTIONS_KEY
from logit_server.cors import with_cors
from logit_server.envelope import Envelope
from logit_server.errors import STATUSES
from logit_server.openapi import DocumentedApi
from logit_server.page_folder import PageFolder, joined_run, run_folder
from logit_server.pages import Pages
from logit_server.problems import respond_to
from logit_server.pulse import Pulse
from logit_server.reloads import Reloads
from logit_server.roster import Reread, Roster, shelf_of_run
from logit_server.routes import admin, caches, health, metrics, records, samples, store, views, web
from logit_server.served_caches import Catalog
from logit_server.settings import Settings
from logit_server.shelf import Shelf
from logit_server.state import State
from logit_server.tagging import Tagged
from logit_server.traffic import STATIC
from logit_server.web.static_files import PackageFiles
from logit_server.web.worker import Web
from logit_server.wishes import Wishes

ROUTERS = (
    caches.router,
    samples.router,
    records.plain_router,
    views.router,
    store.router,
    health.router,
    metrics.router,
    admin.router,
    web.router,
)
"""Every endpoint. To add some: a module in ``routes/`` with a ``router``, and its name here."""

_DESCRIPTION = """Streams compressed teacher logits by sample id or row.

A *record* is the encoded teacher output of one (view, row); `record_bytes` and the codec are in the manifest.
Every answer about a cache names its `cache_id` in `X-KDCache-Id`. `{name}` may be a cache's name or its
cache_id; answers under the latter never change and may be kept for ever."""


def create_app(
    settings: Settings,
    *,
    catalog: Catalog | None = None,
    pages: Path | None = None,
    pulse: Pulse | None = None,
    board: Board | None = None,
    reread: Reread | None = None,
) -> ASGIApp:
    """The ASGI application that serves the caches of ``settings``.

    Raises what :func:`open_catalog` raises. What a run with several workers shares is given: ``catalog``
    (caches that are open already), ``pages`` (the page folder), ``pulse`` (what tells the supervisor that the
    worker lives) and ``board`` (where the workers count); alone, an application makes its own. ``reread``:
    reads the settings anew, when what is served is to be read again.
    """
    process = 0 if pulse is None else pulse.slot
    shelf = shelf_of_run(settings, pages, reread) if catalog is None else Shelf.of(catalog)
    state = State(settings, shelf.catalog(), pages, shelf, board=board or new_board(), process=process)
    api = DocumentedApi(
        state,
        title="kdcache",
        description=_DESCRIPTION,
        version="1",
        lifespan=lambda api: _running(state, api.state.web, api.state.reloads, pages, pulse),
        docs_url=None,  # ours needs no internet: see routes/web.py
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys((*STATUSES, HTTPException), respond_to),
    )
    for router in ROUTERS:
        api.include_router(router)
    api.state.web = Web(state)
    api.state.reloads = Reloads(state, reread or (lambda: settings))
    api.mount(STATIC, PackageFiles())
    shortcuts: dict[tuple[str, str], Shortcut] = {}

    def take(catalog: Catalog) -> None:
        shortcuts.clear()
        for key, served in catalog.items():
            shortcuts["POST", f"{CACHES_PATH}/{key}/records"] = records.RecordsOf(state, served)

    async def catch_up() -> None:
        await api.state.reloads.catch_up()
        await state.watch.look_at_all()

    take(state.catalog)
    state.catch_up = catch_up
    state.takers += [take, api.state.web.take, state.indexes.begin]
    return with_cors(
        Envelope(Compressed(Tagged(api)), state, shortcuts), state.counters, settings.cors_origins
    )


def new_board(processes: int = 1) -> Board:
    """A board for the processes of a run that serve this application."""
    routes = (route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))
    return Board([*(route.path_format for route in routes), "/openapi.json", STATIC], processes)


@contextlib.asynccontextmanager
async def _running(
    state: State, people: Web, reloads: Reloads, shared: Path | None, pulse: Pulse | None
) -> AsyncIterator[dict[str, Any]]:
    own = run_folder(state.settings.page_dir) if shared is None else joined_run(shared)
    with own as folder:
        pages = state.pages = Pages(
            PageFolder(folder, state.settings.page_bytes, state.readers, state.page_watch)
        )
        state.takers.append(pages.take)
        state.roster = Roster(folder)
        state.roster.write(state.shelf)
        async with contextlib.AsyncExitStack() as stack:
            for context in (
                pages.refreshing(),
                people.running(),
                state.connections.watched(),
                state.access.tokens.watched(),
                state.watch.running(),
                reloads.running(Wishes(folder)),
                contextlib.nullcontext() if pulse is None else pulse.beating(),
                state.publishing(),
                state.indexes.running(state.catalog),
                state.preload.running(pages),
            ):
                await stack.enter_async_context(context)
            with contextlib.closing(state.readers):  # first, so that nobody waits for a block any more
                yield {CONNECTIONS_KEY: state.connections}
