"""Where warnings of a command go."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def show_warnings(console: Console | None) -> None:
    """Warnings (a server that is away, samples left out) as plain lines on stderr.

    On a terminal they go through the console, which keeps its live line below them.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if console is not None and console.is_terminal:
        from rich.logging import RichHandler

        handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, format="%(message)s", force=True)
