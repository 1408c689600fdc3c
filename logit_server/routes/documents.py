"""What a route says of its answers for the OpenAPI document; ``logit_server.openapi`` adds what all have."""

from __future__ import annotations

from types import UnionType
from typing import Any

from pydantic import BaseModel

BINARY = {"schema": {"type": "string", "format": "binary"}}
"""Bytes, as an OpenAPI document describes them."""


def responses(
    *statuses: int, content: dict[str, Any] | None = None, model: type[BaseModel] | UnionType | None = None
) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: its errors, and the ``content`` of a success that is no model alone.

    406 says that the path answers in several types or refuses some, 416 that it takes ``Range``.
    """
    documented: dict[int | str, dict[str, Any]] = {status: {"description": ""} for status in statuses}
    if content is not None:
        documented[200] = {"content": content, "description": "Success"} | ({"model": model} if model else {})
    return documented
