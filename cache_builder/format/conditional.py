"""Writing an object only where none is, or only where it still is what was read: what claims are made of.

S3 (also MinIO and R2), Google Cloud Storage and Azure have conditional puts. What other stores do in their
place is in :mod:`cache_builder.format.backends.over_fsspec`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from zarr.abc.store import Store
from zarr.core.sync import sync

from cache_builder.format.backends.contract import OddKeyError
from cache_builder.format.durable import create_file
from cache_builder.format.errors import StorageError
from cache_builder.format.remote import RemoteStore
from cache_builder.format.store import local_root, make_folders, read_bytes, write_durably
from cache_builder.format.waiting import patience_at_most

_T = TypeVar("_T")


@dataclass(frozen=True)
class Tagged:
    """An object as it was read or written, with what names this version of it."""

    data: bytes
    tag: str | None
    """The ETag or the generation; None for a local store, which has no such thing."""


def create_object(store: Store, key: str, data: bytes) -> Tagged | None:
    """Write an object where there is none; None, and nothing is changed, where there is one."""
    if isinstance(store, RemoteStore):
        return _put(store, key, data, lambda: store.backend.create(store.full_key(key), data))
    root = local_root(store)
    if root is None:  # in memory, where nobody else writes
        return _written(store, key, data) if read_bytes(store, key) in (None, data) else None
    make_folders(root, (root / key).parent)
    made = create_file(root / key, data, durable=True)
    return Tagged(data, None) if made or read_bytes(store, key) == data else None


def replace_object(store: Store, key: str, data: bytes, seen: Tagged) -> Tagged | None:
    """Write an object in place of the version that was seen; None where it is another one by now, or gone."""
    tag = seen.tag
    if not isinstance(store, RemoteStore) or tag is None:
        return _written(store, key, data) if read_bytes(store, key) == seen.data else None
    try:
        return _put(store, key, data, lambda: store.backend.replace(store.full_key(key), data, tag))
    except FileNotFoundError:
        return None


def read_tagged(store: Store, key: str) -> Tagged | None:
    """An object and its version; None where there is none."""
    if not isinstance(store, RemoteStore):
        data = read_bytes(store, key)
        return None if data is None else Tagged(data, None)
    try:
        return Tagged(*_answer(store, lambda: store.backend.get_tagged(store.full_key(key))))
    except FileNotFoundError:
        return None


def first_keys(store: Store, most: int) -> list[str]:
    """The first keys below the root of a store, at most so many: a bucket may hold millions.

    An object that only stands for the folder itself, as S3 consoles make them, is left out.
    """

    async def collect() -> list[str]:
        keys: list[str] = []
        try:
            async for key in store.list_prefix(""):
                keys += [key] if key.strip("/") else []
                if len(keys) >= most and isinstance(store, RemoteStore):
                    break
        except FileNotFoundError:
            pass
        except OddKeyError as odd:
            assert isinstance(store, RemoteStore)
            keys.append(odd.key.removeprefix(f"{store.path}/"))
        return sorted(keys)[:most]

    return sync(collect())


def is_object(store: Store) -> bool:
    """Whether the root of a remote store is itself an object, so that nothing should lie below it."""
    return isinstance(store, RemoteStore) and bool(store.path) and sync(store.exists(""))


def parent_stores(store: Store) -> list[Store]:
    """The stores of all folders above the root of a remote one, the bucket first."""
    if not isinstance(store, RemoteStore):
        return []
    parts = [part for part in store.path.split("/") if part]
    above = ["/".join(parts[:count]) for count in range(len(parts))]
    return [RemoteStore(store.backend, path, read_only=True) for path in above]


def _written(store: Store, key: str, data: bytes) -> Tagged:
    write_durably(store, key, data)
    return Tagged(data, None)


def _put(store: RemoteStore, key: str, data: bytes, request: Callable[[], Awaitable[str]]) -> Tagged | None:
    """What a conditional put came to: one that is repeated after a lost answer finds its own object."""
    try:
        return Tagged(data, _answer(store, request))
    except FileExistsError:
        return _if_ours(read_tagged(store, key), data)
    except StorageError:
        with suppress(StorageError), patience_at_most(0):
            found = _if_ours(read_tagged(store, key), data)
            if found is not None:
                return found
        raise


def _if_ours(found: Tagged | None, data: bytes) -> Tagged | None:
    return found if found is not None and found.data == data else None


def _answer(store: RemoteStore, request: Callable[[], Awaitable[_T]]) -> _T:
    return sync(store.ask(request))
