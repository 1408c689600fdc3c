"""Settings with several values: a list, or in one line of text."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BeforeValidator


def split(value: object) -> object:
    """``a,b`` or ``["a", "b"]`` as its parts; everything but text is left to pydantic."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(item.strip() for item in value.split(",") if item.strip())


Listed = Annotated[tuple[str, ...], BeforeValidator(split)]
"""Several values. In the environment they stand between commas, or as a JSON list."""
