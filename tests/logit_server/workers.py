"""What the supervised processes of tests do: functions that a fresh process can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from uvicorn.config import STARTUP_FAILURE

from logit_server.pulse import Pulse


def live(pulse: Pulse) -> None:
    """Work without end."""
    _become_ready(pulse)
    while True:
        pulse.beat()
        time.sleep(0.05)


def end(pulse: Pulse) -> None:
    """End by itself as soon as it has started."""
    _become_ready(pulse)
    sys.exit(7)


def refuse(pulse: Pulse) -> None:
    """Find that it cannot start."""
    sys.exit(STARTUP_FAILURE)


def freeze(pulse: Pulse) -> None:
    """Stop giving signs of life, and hear no plea to end."""
    _become_ready(pulse)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pulse.beat()
    time.sleep(3600)


def refuse_later(folder: Path, pulse: Pulse) -> None:
    """Live the first time, and refuse to start the second."""
    if (folder / "started").exists():
        refuse(pulse)
    (folder / "started").touch()
    _become_ready(pulse)
    pulse.beat()
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGSEGV)


def _become_ready(pulse: Pulse) -> None:
    pulse.is_ready = True
