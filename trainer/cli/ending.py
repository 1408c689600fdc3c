"""How a command ends: every refusal is one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from cache_builder.console.ending import Terminated, describe_os_error

INTERRUPTED, TERMINATED = 130, 143


@contextmanager
def reported() -> Iterator[None]:
    """Run a command's work and turn what goes wrong into a message and an exit code."""
    # Imported here: the format package brings NumPy and Zarr, for which --help should not wait.
    from cache_builder.console.environment import check_variables, spare_loopback
    from cache_builder.format.errors import KDCacheError

    try:
        check_variables()
        spare_loopback()
        yield
    except KDCacheError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end(str(error) or "interrupted", TERMINATED if isinstance(error, Terminated) else INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing is wrong.
        sys.stderr.close()
        raise typer.Exit(0) from None
    except OSError as error:
        _end(describe_os_error(error), 1)


def _end(message: str, code: int) -> NoReturn:
    typer.secho("error: ", fg="red", err=True, nl=False)
    typer.echo(message, err=True)
    raise typer.Exit(code)
