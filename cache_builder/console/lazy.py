"""Commands whose modules are imported when they are needed, so that ``--help`` of a program loads none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""What all our programs and commands have in common."""


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is, and what the list of commands says of it."""

    module: str
    """Its ``commands`` is a typer application with this command, alone or among others."""
    summary: str
    """The first sentence of the command's own help."""

    def load(self, name: str) -> Any:
        """The command itself."""
        found: Any = get_command(import_module(self.module).commands)
        return found.commands[name] if isinstance(found, TyperGroup) else found


def lazy_group(table: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """A class for ``typer.Typer(cls=...)`` whose groups have these commands beside those registered."""

    class LazyGroup(TyperGroup):
        """Lists commands by their summaries, and imports the one that is called."""

        def __init__(self, **attributes: Any) -> None:
            listed = {name: TyperCommand(name, help=lazy.summary) for name, lazy in table.items()}
            registered = attributes.pop("commands", None) or {}
            super().__init__(commands={**listed, **registered}, **attributes)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """The command of that name, or None."""
            return table[cmd_name].load(cmd_name) if cmd_name in table else self.commands.get(cmd_name)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Print the help of this group as typer does, without importing any command."""
            listing = TyperGroup(name=self.name, commands=dict(self.commands), params=self.params)
            for name in ("help", "epilog", "rich_markup_mode", "options_metavar", "subcommand_metavar"):
                setattr(listing, name, getattr(self, name))
            listing.format_help(ctx, formatter)

    return LazyGroup


class LazyProgram(TyperCommand):
    """Stands in a group for a whole program of which only name and help are known yet.

    ``load`` imports the Typer application and returns it. It is called when the program runs or shows its
    own help.
    """

    def __init__(self, name: str, load: Callable[[], typer.Typer], help: str) -> None:
        super().__init__(name, help=help, rich_markup_mode="markdown")
        self._load = load

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the real program, which its group then runs."""
        return get_command(self._load()).make_context(*args, **kwargs)
