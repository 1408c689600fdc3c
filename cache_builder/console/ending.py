"""How a command ends: every refusal is one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command the way Ctrl-C does, with its own exit code."""


@contextmanager
def reported() -> Iterator[None]:
    """Run a command's work and turn what goes wrong into a message and an exit code."""
    try:
        with _sigterm_raises():
            _look_at_environment()
            yield
    except KeyboardInterrupt as error:
        code = _TERMINATED if isinstance(error, Terminated) else _INTERRUPTED
        _end("interrupted; what was committed is kept, and the same command continues or starts anew", code)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong.
        sys.stderr.close()
        raise typer.Exit(0) from None
    except OSError as error:
        _end(describe_os_error(error), 1)
    except Exception as error:
        # Imported here: the format package brings NumPy and Zarr, for which --help should not wait.
        from cache_builder.format.errors import KDCacheError

        if not isinstance(error, KDCacheError):
            raise
        _end(str(error), error.exit_code)


def _look_at_environment() -> None:
    # Imported here: the format package brings NumPy and Zarr, for which --help should not wait.
    from cache_builder.console.environment import check_variables, spare_loopback

    check_variables()
    spare_loopback()


def describe_os_error(error: OSError) -> str:
    """A full disk, a missing permission and the like, with what to do."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free space and run the same command again; committed work is kept"
    return f"{error.strerror or error}{where}"


def _end(message: str, code: int) -> NoReturn:
    typer.secho("error: ", fg="red", err=True, nl=False)
    typer.echo(message, err=True)
    raise typer.Exit(code)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise Terminated
