"""Where settings come from: flags before variables, those before a file, and the defaults last."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import SecretStr, ValidationError

from cache_builder.console.environment import PREFIX, check_variables
from cache_builder.console.options import Settings
from cache_builder.format.errors import ConfigError

CONFIG_VARIABLE = "KDCACHE_CONFIG"

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Gathered(Generic[S]):
    """Settings, and where each of them came from."""

    settings: S
    origins: Mapping[str, str]
    """By name, such as "flag" or "variable KDCACHE_PORT"; what is not here has its default."""


@dataclass(frozen=True)
class _Source:
    """What one place says, by the names of the settings."""

    values: Mapping[str, object]
    origin: Callable[[str], str]
    """What to call a setting of this place in ``--print-config``."""
    name: Callable[[str], str]
    """What to call it in an error."""


def gather(model: type[S], flags: Mapping[str, object], file: Path | None = None) -> Gathered[S]:
    """The settings that flags, the environment and a file (or the one of ``KDCACHE_CONFIG``) give together.

    Raises :class:`ConfigError` that names everything which is wrong, also where something else wins over it:
    a misspelt limit would be no limit.
    """
    check_variables()
    sources = [*_file_source(file), _environment_source(model), _flag_source(flags)]
    if wrong := [problem for source in sources for problem in _problems(model, source)]:
        raise ConfigError(f"the server's settings are not valid: {'; '.join(wrong)}")
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for source in sources:
        values |= source.values
        origins |= {name: source.origin(name) for name in source.values}
    return Gathered(model.model_validate(values), origins)


def gather_settings(model: type[S], flags: Mapping[str, object], file: Path | None = None) -> S:
    """As :func:`gather`, without where each came from."""
    return gather(model, flags, file).settings


def is_secret(model: type[Settings], name: str) -> bool:
    """Whether the value of a setting must not be shown."""
    field = model.model_fields.get(name)
    return field is not None and field.annotation == SecretStr | None


def _flag_source(flags: Mapping[str, object]) -> _Source:
    return _Source(flags, lambda _: "flag", lambda name: name)


def _environment_source(model: type[Settings]) -> _Source:
    given = {name.upper(): value for name, value in os.environ.items()}
    names = {name: f"{PREFIX}{name.upper()}" for name in model.model_fields}
    values = {name: given[variable] for name, variable in names.items() if variable in given}
    return _Source(values, lambda name: f"variable {names[name]}", lambda name: names[name])


def _file_source(file: Path | None) -> Iterator[_Source]:
    path = file or os.environ.get(CONFIG_VARIABLE)
    if path:
        values = read_toml(Path(path), "the file of settings")
        yield _Source(values, lambda _: f"file {path}", lambda name: f"{name} in {path}")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """What a TOML file holds; :class:`ConfigError` where it cannot be read. ``what``: its name in errors."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{what}, {path}, cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{what}, {path}, is not TOML: {error}") from error


def _problems(model: type[Settings], source: _Source) -> Iterator[str]:
    try:
        model.model_validate(source.values)
    except ValidationError as error:
        for item in error.errors():
            name = str(item["loc"][0])
            if item["type"] == "extra_forbidden":
                yield f"{source.name(name)} is no setting{near(name, model.model_fields)}"
            else:
                shown = "not shown" if is_secret(model, name) else repr(item["input"])
                yield f"{source.name(name)} is {shown}: {item['msg'].removeprefix('Value error, ')}"


def near(name: str, known: Iterator[str] | Mapping[str, Any]) -> str:
    """A question that offers the known name which looks most like a misspelt one, if any does."""
    found = difflib.get_close_matches(name.replace("-", "_").lower(), list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
