"""The base of all that a manifest is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Frozen(BaseModel):
    """A value object: immutable, no unknown keys, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class NamedConfiguration(Frozen):
    """A thing chosen by name, with its parameters: ``{"name": ..., "configuration": {...}}``."""

    name: str
    configuration: dict[str, JsonValue] = Field(default_factory=dict)
