"""Things that users write themselves, found by ``package.module:Name``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from cache_builder.format.errors import ConfigError

_OURS = tuple(Path(__file__).parents[2] / room for room in ("cache_builder", "logit_server", "trainer"))
TRUSTED = "KDCACHE_TRUSTED_CODE"
"""Environment variable with the names of code that caches may name, between commas."""
_EXPECTED = "expected package.module:Name"


def is_dotted(text: str) -> bool:
    """Whether a text has the form ``package.module:Name``."""
    module_name, colon, name = text.partition(":")
    return bool(colon) and _is_path(module_name) and _is_path(name)


def import_dotted(path: str, what: str) -> Any:
    """What ``package.module:Name`` names; the module is installed or lies in the working directory.

    ``what``: what it is to be, e.g. ``"loss"``, for errors. Raises :class:`ConfigError` for a module that is
    not there, one that fails while it is imported (naming the user's line), and a name that it lacks.
    """
    if not is_dotted(path):
        raise ConfigError(f"{what} {path!r}: {_EXPECTED}")
    module_name, _, name = path.partition(":")
    find_in_working_directory()
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{what} {path!r}: {error}; {_EXPECTED}, installed or in the working directory"
            ) from error
        raise ConfigError(f"{what} {path!r}: importing {module_name} failed: {failure(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{what} {path!r}: {module_name} has no attribute {name!r}; {_EXPECTED}")
        found = getattr(found, part)
    return found


def check_trusted(path: str, what: str) -> None:
    """Raise :class:`ConfigError` where a cache names code for which neither program nor user has vouched.

    A cache may be anybody's: what it names is used where this program has imported the module already, or
    where ``KDCACHE_TRUSTED_CODE`` lists it.
    """
    module_name = path.partition(":")[0]
    if module_name in sys.modules or path in os.environ.get(TRUSTED, "").split(","):
        return
    raise ConfigError(
        f"the cache names a {what} that is not one of kdcache, {path}: code that a cache names is not "
        f"imported unless you say so; if you know it, set {TRUSTED}={path} (several between commas), or "
        f"import {module_name} in your own program first"
    )


def find_in_working_directory() -> None:
    """Let modules in the working directory be imported, as ``python -m`` does and a script does not."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def failure(error: BaseException) -> str:
    """An error of the user's code with its file and line, for a message without a traceback."""
    # A syntax error names its line itself, which is not where Python's importer stood.
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frame = _users_frame(error)
    where = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    return f"{type(error).__name__}: {error}{where}"


def _users_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame in the folder of the user's code: where the first frame that is not ours lies."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and frame.filename != importlib.__file__
        and not any(Path(frame.filename).is_relative_to(room) for room in _OURS)
    ]
    if not frames:
        return None
    home = Path(frames[0].filename).parent
    return [frame for frame in frames if Path(frame.filename).is_relative_to(home)][-1]


def _is_path(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
