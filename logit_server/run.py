"""Running a server: check the caches, take the port, serve until told to stop, clean up."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from logging.config import dictConfig
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from cache_builder.format import ConfigError, KDCacheError, ServerError
from cache_builder.format.wire import cache_path
from logit_server.access import check_access
from logit_server.app import create_app, new_board
from logit_server.board import Board
from logit_server.listening import check_listening
from logit_server.log import log_config, tell
from logit_server.page_folder import run_folder
from logit_server.printed_settings import shown
from logit_server.private_folder import make_private
from logit_server.protocol import GuardedProtocol
from logit_server.pulse import Pulse
from logit_server.roster import Reread, Roster
from logit_server.served_caches import Catalog
from logit_server.settings import Settings
from logit_server.shelf import Shelf, open_catalog
from logit_server.supervision import Supervisor
from logit_server.tls import scheme_of, tls_arguments
from logit_server.wishes import wish_on_hangup, wishing_on_hangup

Around = Callable[[ASGIApp], ASGIApp]

_MOST_FILES = 2**20
"""Where the system allows any number."""


def serve(settings: Settings, *, reread: Reread | None = None, around: Around | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests finish and return.

    Several workers are watched, and replaced when they die or freeze. A single one is this process itself:
    whoever started it (systemd, Docker, Kubernetes) watches it and starts it again. At SIGHUP the list of
    caches is read again, as ``reread`` gives it. ``around`` puts middleware around the application of each
    worker, such as that of OpenTelemetry. Spawned processes must be able to import both.

    Raises a :class:`KDCacheError` before the port is taken: for a cache that is missing, incomplete or
    damaged, for settings that do not fit together, for a page folder or a port that cannot be used.
    """
    tls_arguments(settings)  # before caches are opened, which may take a while
    _raise_file_limit()
    dictConfig(log_config(settings))
    catalog = open_catalog(settings)
    with (
        contextlib.suppress(KeyboardInterrupt, _Stopped),
        _stopping_on_sigterm(),
        run_folder(settings.page_dir) as folder,
        wishing_on_hangup(folder),
        bound(settings) as listener,
    ):
        check_access(settings, folder)
        Roster(folder).write(Shelf.of(catalog))
        base = base_url(listener, scheme_of(settings))
        announce(catalog, base)
        tell_start(settings, catalog, base)
        if settings.workers == 1:
            app = create_app(settings, catalog=catalog, pages=folder, reread=reread)
            _run(app, around, settings, listener)
        else:
            _supervisor(settings, _Worker(settings, around, reread, folder), listener).run()
    tell(logging.INFO, "stopped", "stopped")


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A server of one worker in a thread of this process, for demos and tests; gives its base URL.

    It starts no processes to read pages unless the settings say how many.
    """
    # Those who run a server beside something else want to hear of its troubles alone.
    settings = settings.model_copy(update={"log_level": "warning"})
    if "readers" not in settings.model_fields_set:
        settings = settings.model_copy(update={"readers": 0})
    with run_folder(settings.page_dir) as folder, bound(settings) as listener:
        server = uvicorn.Server(server_config(create_app(settings, pages=folder), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="kdcache-server")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            if not server.started:
                raise ServerError("the server did not start: its log says why")
            yield base_url(listener, scheme_of(settings))
        finally:
            server.should_exit = True
            thread.join()


def _raise_file_limit() -> None:
    """Open as many files as the system allows: a page takes three and a connection one, of 1,024 often."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
    with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def _run(app: ASGIApp, around: Around | None, settings: Settings, listener: socket.socket) -> None:
    whole = app if around is None else around(app)
    uvicorn.Server(server_config(whole, settings)).run(sockets=[listener])


def _supervisor(settings: Settings, worker: _Worker, listener: socket.socket) -> Supervisor:
    board = new_board(settings.workers)
    return Supervisor(
        functools.partial(_work, worker, listener, board),
        settings.workers,
        silence_s=settings.worker_silence_s,
        drain_s=settings.drain_s,
        on_end=board.end,
        # While the workers drain, a client that connects is to be refused, not kept waiting in a queue that
        # nobody serves any more.
        before_stop=listener.close,
    )


@dataclass(frozen=True)
class _Worker:
    """What every worker process of a run is given."""

    settings: Settings
    around: Around | None
    reread: Reread | None
    folder: Path


def _work(worker: _Worker, listener: socket.socket, board: Board, pulse: Pulse) -> None:
    """What one worker process among several does."""
    dictConfig(log_config(worker.settings))
    wish_on_hangup(worker.folder)
    try:
        make_private(worker.folder)  # before anything in it is believed
        app = create_app(worker.settings, pages=worker.folder, pulse=pulse, board=board, reread=worker.reread)
    except (KDCacheError, OSError) as error:
        tell(logging.ERROR, "start_failed", "worker %d cannot start: %s", os.getpid(), error)
        sys.exit(STARTUP_FAILURE)
    _run(app, worker.around, worker.settings, listener)


def server_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to run the application."""
    return uvicorn.Config(
        app,
        http=GuardedProtocol,
        lifespan="on",
        ws="none",
        log_config=log_config(settings),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
        **tls_arguments(settings),
    )


@contextlib.contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket; :class:`ConfigError` where the address cannot be taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        check_listening(settings, str(address[0]))
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another --host "
            "or --port (0 takes a free one)"
        ) from error
    with listener:
        yield listener


def base_url(listener: socket.socket, scheme: str = "http") -> str:
    """``scheme://host:port`` of a listening socket, as a client on this machine would write it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def announce(catalog: Catalog, base: str) -> None:
    """Print the URL of every cache: what a person gives to ``kdtrain --cache``."""
    for served in catalog:
        size = f"{served.samples:,} samples, {served.views} views, {served.record_bytes} bytes a record"
        sys.stdout.write(f"{base}{cache_path(served.name)}  ({size})\n")
    sys.stdout.flush()


def tell_start(settings: Settings, catalog: Catalog, base: str) -> None:
    """Log what is served, where, and with which settings."""
    names, release = [served.name for served in catalog], version("kdcache")
    tell(
        logging.INFO, "started", "kdcache %s serves %d cache(s) at %s, workers: %d",
        release, len(names), base, settings.workers,
        version=release, url=base, settings=shown(settings),
        caches=[{"name": served.name, "cache_id": served.cache_id} for served in catalog],
    )  # fmt: skip


class _Stopped(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    # uvicorn drains on SIGTERM and then raises the signal again; by default that would kill the process
    # before the page folder is removed.
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
