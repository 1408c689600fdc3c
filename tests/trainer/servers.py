"""Real logit servers on loopback, for tests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from logit_server.run import serving
from logit_server.settings import Settings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def server(cache: Path, port: int = 0) -> Iterator[str]:
    """A server of one cache, named c, on a chosen port so that it can come back there; gives its URL."""
    with serving(Settings(caches=(f"c={cache}",), port=port)) as base:
        yield f"{base}/v1/caches/c"
