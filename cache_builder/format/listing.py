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


def can_be_listed(store: Store) -> bool:
    """Whether a listing tells what there is: a web server's page of links, if it has any, need not."""
    return not (isinstance(store, RemoteStore) and store.backend.is_read_only)


def listed(store: Store, keys: list[str]) -> dict[str, Listed]:
    """Those of some objects that are there, by key; each is asked for."""
    sizes = zip(keys, object_sizes(store, keys), strict=True)
    return {key: Listed(size) for key, size in sizes if size is not None}


def listing(store: Store) -> Listing:
    """Every object of a store, by key."""
    if not isinstance(store, RemoteStore):
        return listed(store, list_keys(store, ""))
    found: dict[str, Listed] = {}
    unsized: list[str] = []
    for entry in sync(store.entries()):
        if entry.size is None:
            unsized.append(entry.key)
        else:
            found[entry.key] = Listed(entry.size, entry.tag)
    return found | listed(store, unsized)
