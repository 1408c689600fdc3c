"""Commands that are imported when they are called, so that the help of the whole program need not wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command


class LazyCommand(TyperCommand):
    """Stands in a group for a command or group of which only name and help are known yet.

    ``load`` imports the Typer application and returns it. It is called when the command runs or shows its
    own help.
    """

    def __init__(self, name: str, load: Callable[[], typer.Typer], help: str) -> None:
        super().__init__(name, help=help, rich_markup_mode="markdown")
        self._load = load

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the real command, which its group then runs."""
        return get_command(self._load()).make_context(*args, **kwargs)
