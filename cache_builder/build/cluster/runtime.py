"""Ray itself: found, connected to without telemetry, and left again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cache_builder.format.errors import ConfigError, KDCacheError

_ANSWER_S = 10.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # as ever, without a line that says so
}


def find_ray() -> Any:
    """The package, whose names have no types; :class:`ConfigError` where it is not installed."""
    try:
        return import_module("ray")
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray on every node: pip install 'kdcache[ray]'") from error


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at ``address``; None: to the one Ray finds, else one on this machine.

    A cluster that was started here ends with the block; of another one only our actors end. A program that
    is connected already stays so.
    """
    os.environ.update(_QUIET)
    ray = find_ray()
    if ray.is_initialized():
        yield ray
        return
    before = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _connect(ray, address)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own handler would end this process at any line
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        _check_answers(address)
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address is not None:
                raise
            # Ray asks nobody who they are: what we start listens on this machine alone.
            ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except Exception as error:
        ray.shutdown()
        raise ConfigError(
            f"--engine ray: no cluster at {address or 'this machine, and none can be started'} "
            f"({_line(error)}); start one with `ray start --head`, and give it with --address HOST:PORT"
        ) from error


def _check_answers(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "://" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()


def what_died(ray: Any) -> tuple[type[Exception], ...]:
    """What a call raises because a process, a node or an object is gone: the same call may succeed later."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.ObjectLostError,
        errors.OutOfMemoryError,
    )


def fetched(ray: Any, ref: Any) -> Any:
    """The value of a call that has ended; what it raised is raised as it was there.

    What :func:`what_died` names passes through; anything else of Ray's is a :class:`KDCacheError`.
    """
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KDCacheError):
            raise error.cause from None
        raise KDCacheError(f"a process of the cluster failed: {_line(error.cause)}") from error
    except what_died(ray):
        raise
    except ray.exceptions.RayError as error:
        raise KDCacheError(f"Ray: {_line(error)}; committed tiles are kept") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0][:300]
