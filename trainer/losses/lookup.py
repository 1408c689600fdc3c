"""The one place where a loss is found by its name: a key of ``LOSSES``, or ``package.module:Name``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cache_builder.console.dotted import import_dotted, is_dotted
from cache_builder.console.names import unknown_name
from cache_builder.format.errors import ConfigError
from trainer.losses.contract import Loss

LOSSES: dict[str, type[Loss]] = {}
"""The dict of ``trainer.losses``, which puts itself here: some of its losses look others up, and to import it
from here would be a circle."""


def find_loss(name: str) -> type[Loss]:
    """The class of a loss.

    Raises :class:`ConfigError` for a name that nobody knows, and for a class that is no loss.
    """
    if not is_dotted(name) and name not in LOSSES:
        raise ConfigError(unknown_name("loss", name, LOSSES) + " (or package.module:Name)")
    kind = import_dotted(name, "loss") if is_dotted(name) else LOSSES[name]
    if not (isinstance(kind, type) and issubclass(kind, Loss) and is_dataclass(kind)):
        raise ConfigError(
            f"loss {name!r} is {_described(kind)}, expected a subclass of trainer.losses.Loss decorated with "
            "@dataclass(frozen=True)"
        )
    if not isinstance(getattr(kind, "name", None), str):
        raise ConfigError(f"loss {name!r} has no name: write name = 'my_loss' into the class")
    return kind


def make_loss(name: str, configuration: dict[str, Any]) -> Loss:
    """A loss with the given fields. Raises :class:`ConfigError` for a name or a field that is not known."""
    kind: Any = find_loss(name)
    known = [item.name for item in fields(kind)]
    for key in configuration:
        if key not in known:
            raise ConfigError(f"loss {name!r}: " + unknown_name("parameter", key, known))
    try:
        loss: Loss = TypeAdapter(kind).validate_python(configuration)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"loss {name!r}: {where}: {problem['msg']}, got {problem['input']!r}") from error
    return loss


def _described(found: object) -> str:
    if not isinstance(found, type):
        return f"an object of type {type(found).__name__}"
    return "a loss, but no dataclass" if issubclass(found, Loss) else f"the class {found.__name__}"
