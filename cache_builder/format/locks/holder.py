"""Which process holds something, and whether it is certainly gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """A process, as another one can name and find it."""

    pid: int
    host: str
    machine: str
    """This boot of this machine, and the name space of its process numbers; empty where nobody can tell."""
    started: str
    """When it started, in ticks of the machine: a number that was used again is another process."""

    @classmethod
    def this(cls) -> Self:
        """The calling process."""
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _machine(), _started(pid) or "")

    @classmethod
    def parsed(cls, body: dict[str, Any]) -> Self:
        """From its fields; KeyError, TypeError or ValueError where they are not there."""
        return cls(int(body["pid"]), str(body["host"]), str(body["machine"]), str(body["started"]))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and does not any more; False where nobody here can know."""
        here = _machine()
        return bool(here) and here == self.machine and _started(self.pid) != self.started


def _machine() -> str:
    """Containers share the boot, and may share the host's name, but not the processes."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Field 22 of ``/proc/PID/stat``; None for no process, and for one that is dead and not yet buried."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the second field, the name, may hold anything
    return None if fields[0] in "ZX" else fields[19]
