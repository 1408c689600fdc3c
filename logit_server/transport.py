"""What a connection does to its transport and socket: reading on hold, what is unread, breaking off."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios

from uvicorn.protocols.http.flow_control import FlowControl


class HeldFlow(FlowControl):
    """Flow control that reads nothing further while it is held."""

    is_held = False

    def resume_reading(self) -> None:
        """Read on, unless that is held."""
        if not self.is_held:
            super().resume_reading()


class Unread:
    """Whether a client takes what it is sent."""

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None
        """A time, in seconds, and the bytes that it had not taken then."""

    def forget(self) -> None:
        """It goes on reading."""
        self._since = None

    def is_slow(self, transport: asyncio.Transport, now: float, *, read_s: float, bytes_per_s: int) -> bool:
        """Whether bytes wait for it and it took fewer than ``bytes_per_s`` in the last ``read_s`` seconds."""
        size: int = transport.get_write_buffer_size()
        # The system takes megabytes at once from here, and only when as many have gone out: what it holds
        # says whether the client reads.
        size += _queued_bytes(transport) if size else 0
        if size == 0 or self._since is None or size > self._since[1]:
            self._since = (now, size) if size else None
            return False
        since, before = self._since
        if now - since < read_s:
            return False
        self._since = now, size
        return before - size < (now - since) * bytes_per_s


def break_off(transport: asyncio.Transport) -> None:
    """Close a connection at once, and forget what has not been sent."""
    with contextlib.suppress(OSError):
        # The system forgets it too, instead of offering it to the client for minutes.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _queued_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the system has taken and the client's system has not acknowledged; 0 where it cannot say."""
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)
