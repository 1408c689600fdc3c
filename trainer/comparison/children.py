"""``kdtrain`` commands as child processes that never outlive their parent.

A child sits in a session of its own, so that Ctrl-C on the terminal reaches the parent alone, which tells the
children once. Its standard input is a pipe that nobody writes to: when the parent is gone, however it ended,
the pipe ends, and the child stops as if told.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_WATCHES = "KDTRAIN_ENDS_WITH_PARENT"
_GRACE_S = 60.0
"""How long a child whose parent is gone may take to write its checkpoint."""


class Child:
    """One command, its output appended to a log."""

    def __init__(self, words: Sequence[str], log: Path, threads: int, held_files: Sequence[int] = ()) -> None:
        """Start ``kdtrain WORDS`` on a number of cores.

        ``held_files``: descriptors that the child keeps open as long as it lives.
        """
        self.log = log
        environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", _WATCHES: "1"}
        with log.open("ab") as file:
            file.write(f"$ kdtrain {shlex.join(words)}\n".encode())
            self._log_start = file.tell()
            file.flush()
            # -P: a file "kdcache.py" beside the user's data is not this program.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kdcache", "train", *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=held_files,
            )

    def poll(self) -> int | None:
        """Its exit code, minus a signal's number where that ended it; None while it runs."""
        return self._process.poll()

    def tell_to_stop(self) -> None:
        """Ask for a checkpoint and the end."""
        self._process.terminate()

    def wait(self) -> None:
        """Until it ended."""
        self._process.wait()

    def kill(self) -> None:
        """End it and its loader processes at once, unless it ended before."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def failure(self) -> str:
        """In one line, why it ended: its error, else the last line of a traceback, else its exit code."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        code = self.poll()
        if code is not None and code < 0:
            return f"ended by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -9 else "")
        if errors:
            return errors[-1]
        return lines[-1] if lines else f"exit code {code}"


class Children:
    """Those that run at the moment. Leaving the block tells them to stop, waits, and leaves none behind."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __len__(self) -> int:
        return len(self._children)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for child in self._children:
                child.tell_to_stop()
            for child in self._children:
                child.wait()
        finally:
            # A second Ctrl-C comes here while some still write their checkpoints.
            for child in self._children:
                child.kill()

    def add(self, child: Child) -> Child:
        """Look after one more."""
        self._children.append(child)
        return child

    def remove(self, child: Child) -> None:
        """One that ended."""
        child.kill()
        self._children.remove(child)


def end_with_parent() -> None:
    """In a process that ``Child`` started: stop when its parent is gone. Elsewhere: nothing."""
    if os.environ.pop(_WATCHES, None) is not None:
        threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    # Not sys.stdin, whose lock would hold up the end of the interpreter.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(128 + signal.SIGTERM)
