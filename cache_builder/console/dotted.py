"""Things of the user's own code, named as ``package.module:Name``: teachers, students, losses."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from cache_builder.format.errors import ConfigError

_OURS = Path(__file__).parents[1]


def is_dotted(name: str) -> bool:
    """Whether a name is meant as ``package.module:Name``."""
    return ":" in name


def import_dotted(path: str, what: str = "Name") -> object:
    """What ``package.module:Name`` names; a module may also lie in the working directory.

    ``what``: the word for it in errors. Raises :class:`ConfigError` that names the line of the user's own
    module at which importing it failed.
    """
    module_name, _, attribute = path.partition(":")
    expected = f"expected package.module:{what}"
    if not module_name or not attribute or module_name.startswith("."):
        raise ConfigError(f"{path!r} is incomplete: {expected}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{path!r}: {error}; {expected}, installed or in the working directory"
            ) from error
        raise ConfigError(f"{path!r}: importing {module_name} failed: {failure(error)}") from error
    except Exception as error:
        raise ConfigError(f"{path!r}: importing {module_name} failed: {failure(error)}") from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{path!r}: {module_name} has no attribute {attribute!r}; {expected}")
    found: object = getattr(module, attribute)
    return found


def failure(error: Exception) -> str:
    """An error of the user's code with its file and line, for a message without a traceback."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frame = _users_frame(error)
    where = f" ({frame.filename}, line {frame.lineno})" if frame else ""
    return f"{type(error).__name__}: {error}{where}"


def _users_frame(error: Exception) -> traceback.FrameSummary | None:
    """The innermost frame in the folder of the user's code: where the first frame that is not ours lies."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
        and frame.filename != importlib.__file__
        and not Path(frame.filename).is_relative_to(_OURS)
    ]
    if not frames:
        return None
    home = Path(frames[0].filename).parent
    return [frame for frame in frames if Path(frame.filename).is_relative_to(home)][-1]
