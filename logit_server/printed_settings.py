"""Settings as text: the TOML of ``--print-config``, and the list of variables."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cache_builder.console.environment import PREFIX
from cache_builder.console.options import Settings
from logit_server.sources import Gathered, S, is_secret

_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]*@")


def as_toml(gathered: Gathered[S]) -> str:
    """The settings as a file that ``--config`` takes, and beside each where it came from; no secrets."""
    return "".join(f"{_line(gathered, name)}\n" for name in type(gathered.settings).model_fields)


def shown(settings: Settings) -> dict[str, object]:
    """The settings that are set, as JSON has them; of secrets only that they are."""
    found = settings.model_dump(mode="json", exclude_none=True)
    return {name: _shown(type(settings), name, value) for name, value in found.items()}


def _shown(model: type[Settings], name: str, value: object) -> object:
    if is_secret(model, name):
        return "set"
    if isinstance(value, list):
        return [_PASSWORD_IN_URL.sub("", str(item)) for item in value]
    return _PASSWORD_IN_URL.sub("", value) if isinstance(value, str) else value


def described(model: type[Settings]) -> str:
    """Every setting as a variable of the environment: name, default, meaning."""
    lines = []
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"{PREFIX}{name.upper()}  (default: {field.default!s})\n    {meaning}")
    return "\n".join(lines)


def _line(gathered: Gathered[S], name: str) -> str:
    value, origin = getattr(gathered.settings, name), gathered.origins.get(name, "default")
    if value is None:
        return f"# {name} is not set"
    if is_secret(type(gathered.settings), name):
        return f"# {name} is set and not shown ({origin})"
    return f"{name} = {_toml(value)}  # {origin}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value) if isinstance(value, int) else value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | Path):
        # JSON strings are TOML strings.
        return json.dumps(_PASSWORD_IN_URL.sub("", str(value)), ensure_ascii=False)
    raise TypeError(f"no TOML is known for {type(value).__name__}")
