"""The value objects of kdcache: what a manifest, a recipe or a command's settings consist of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Decoding = Literal[1, 2]
"""A rule by which files become pixels (VIEWS.md)."""


class Frozen(BaseModel):
    """A value object: immutable, no unknown keys, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
