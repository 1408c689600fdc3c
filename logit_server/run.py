"""Running a server: check the caches, take the port, serve until told to stop, clean up."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from cache_builder.format import ConfigError, KDCacheError, ServerError
from cache_builder.format.wire import cache_path
from logit_server.access import check_access
from logit_server.app import create_app
from logit_server.listening import check_listening
from logit_server.page_folder import run_folder
from logit_server.protocol import GuardedProtocol
from logit_server.served_caches import Catalog, open_catalog
from logit_server.settings import Settings
from logit_server.tls import scheme_of, tls_arguments

_HEALTHCHECK_S = 60
"""Seconds after which a silent worker is replaced. uvicorn's 5 are less than a busy machine needs to start
one, and it would be started again and again."""


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then let running requests finish and return.

    Raises a :class:`KDCacheError` before the port is taken: for a cache that is missing, incomplete or
    damaged, for settings that do not fit together, for a page folder or a port that cannot be used.
    """
    tls_arguments(settings)  # before caches are opened, which may take a while
    catalog = open_catalog(settings)
    with (
        contextlib.suppress(KeyboardInterrupt, _Stopped),
        _stopping_on_sigterm(),
        run_folder(settings.page_dir) as folder,
        bound(settings) as listener,
    ):
        check_access(settings, folder)
        announce(catalog, base_url(listener, scheme_of(settings)))
        if settings.workers == 1:
            app = create_app(settings, catalog=catalog, pages=folder)
            uvicorn.Server(server_config(app, settings)).run(sockets=[listener])
        else:
            worker = functools.partial(worker_app, settings, folder, os.getpid())
            _Supervisor(server_config(worker, settings, factory=True), sockets=[listener]).run()


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A server of one worker in a thread of this process, for demos and tests; gives its base URL.

    It starts no processes to read pages unless the settings say how many.
    """
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


def worker_app(settings: Settings, folder: Path, parent: int) -> ASGIApp:
    """The application of one worker process among several."""
    try:
        return create_app(settings, pages=folder, parent=parent)
    except KDCacheError as error:
        # This exit code stops the whole server: another worker would fail alike.
        sys.stderr.write(f"{error}\n")
        sys.exit(STARTUP_FAILURE)


def server_config(app: Any, settings: Settings, *, factory: bool = False) -> uvicorn.Config:
    """How uvicorn is to run the application (or, with ``factory``, the function that makes it)."""
    logging = copy.deepcopy(LOGGING_CONFIG)
    logging["loggers"]["logit_server"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return uvicorn.Config(
        app,
        factory=factory,
        http=GuardedProtocol,
        workers=settings.workers,
        lifespan="on",
        ws="none",
        log_config=logging,
        log_level="info" if settings.access_log else "warning",
        access_log=settings.access_log,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
        timeout_worker_healthcheck=_HEALTHCHECK_S,
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


class _Supervisor(Multiprocess):
    """Starts, watches and stops the workers."""

    def terminate_all(self) -> None:
        # While the workers drain, a client that connects is to be refused, not kept waiting in a queue
        # that nobody serves any more.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


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
