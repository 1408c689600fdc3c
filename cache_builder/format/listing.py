"""What a listing says of the objects of a store: one request tells the sizes of a thousand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from zarr.abc.store import Store
from zarr.core.sync import sync

from cache_builder.format.remote import RemoteStore
from cache_builder.format.store import list_keys, object_sizes


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    size: int
    """In bytes."""
    tag: str | None = None
    """S3's ETag: the MD5 of an object that was put in one piece and is not encrypted by a key of its own."""

    def is_certainly(self, data: bytes) -> bool:
        """Whether the store says itself that the object holds these bytes; False where nobody can tell."""
        if len(data) != self.size or not self.tag:
            return False
        return hashlib.md5(data, usedforsecurity=False).hexdigest() == self.tag


Listing = Mapping[str, Listed]


def listing(store: Store) -> Listing:
    """Every object of a store, by key."""
    entries = sync(store.entries()) if isinstance(store, RemoteStore) else []
    known = {entry.key: Listed(entry.size, entry.tag) for entry in entries if entry.size is not None}
    unsized = list_keys(store, "") if not isinstance(store, RemoteStore) else [
        entry.key for entry in entries if entry.size is None
    ]  # fmt: skip
    sizes = object_sizes(store, unsized)
    return known | {key: Listed(size) for key, size in zip(unsized, sizes, strict=True) if size is not None}
