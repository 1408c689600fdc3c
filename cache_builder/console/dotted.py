"""Things that users write themselves, found by ``package.module:Name``."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from cache_builder.format.errors import ConfigError


def is_dotted(path: str) -> bool:
    """Whether a text has the form ``package.module:Name``."""
    module_name, colon, name = path.partition(":")
    return bool(colon) and _is_path(module_name) and _is_path(name)


def import_dotted(path: str, kind: str) -> Any:
    """What ``package.module:Name`` names; the module is installed or lies beside the working directory.

    ``kind``: what it is to be, e.g. ``"loss"``, for the error. Raises :class:`ConfigError` for a module that
    is not there, one that fails while it is imported (naming its line), and a name that it does not have.
    """
    if not is_dotted(path):
        raise ConfigError(f"{kind} {path!r}: expected package.module:Name")
    module_name, _, name = path.partition(":")
    find_beside_working_directory()
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{kind} {path!r}: {error}; expected package.module:Name, installed or beside the working "
                "directory"
            ) from error
        raise ConfigError(f"{kind} {path!r}: importing {module_name} failed: {in_words(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{kind} {path!r}: {module_name} has no attribute {name!r}")
        found = getattr(found, part)
    return found


def find_beside_working_directory() -> None:
    """Let modules beside the working directory be imported, as ``python -m`` does and a script does not."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def in_words(error: BaseException) -> str:
    """Somebody else's error with the line it came from, for a message without a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[:1] != "<"]
    # A syntax error names its line itself, which is not where Python's importer stood.
    is_told = isinstance(error, SyntaxError) or not frames
    where = "" if is_told else f" ({frames[-1].filename}, line {frames[-1].lineno})"
    return f"{type(error).__name__}: {error}{where}"


def _is_path(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
