"""The hub's client without a network: it would try for a while, and warn at every try."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cache_builder.console.environment import proxy_for

_WAIT_S = 5.0
_LOGGERS = ("huggingface_hub", "timm")


@contextmanager
def one_try() -> Iterator[None]:
    """While published weights are fetched: without a network the hub's own cache alone is asked.

    Warnings of the client are held back: what comes of it is told by its error.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reachable(endpoint: str, wait_s: float = _WAIT_S) -> bool:
    """Whether a server, or the proxy that stands before it, takes a connection."""
    asked = proxy_for(endpoint) or endpoint
    place = urlsplit(asked if "://" in asked else f"http://{asked}")
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        socket.create_connection((place.hostname or "", port), timeout=wait_s).close()
    except (OSError, ValueError):
        return False
    return True
