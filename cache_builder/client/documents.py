"""What a server says of itself and of its caches, as far as programs go by it."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel


class CacheEntry(BaseModel):
    """A cache in the list of a server. Members that later releases add are passed over."""

    name: str
    cache_id: str
    samples: int
    views: int
    classes: int
    record_bytes: int
    """Bytes of one record as it is sent."""


class CacheEntries(BaseModel):
    """The list itself."""

    caches: list[CacheEntry]


class Readiness(NamedTuple):
    """Whether a server can serve records now."""

    is_ready: bool
    reason: str
    """Why not; empty where it can."""
