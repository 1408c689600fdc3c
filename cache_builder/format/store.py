"""Bytes by key over a Zarr store: what commits, sizes and durable writes need beyond Zarr's arrays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from cache_builder.format.durable import fsync_folder, write_file
from cache_builder.format.errors import KDCacheError
from cache_builder.format.locations import is_remote, local_path
from cache_builder.format.remote import RemoteStore
from cache_builder.format.starting import note_remote

_T = TypeVar("_T")

# Requests in flight: enough to hide an object store's latency, few enough for its connection pool.
_CONCURRENCY = 32


def open_store(location: str | Path, *, read_only: bool) -> Store:
    """A Zarr store for a local path or a URL such as ``s3://bucket/cache.zarr``.

    Raises :class:`ConfigError` for a URL whose protocol is unknown or not installed, or that can only be
    read. A remote store raises :class:`StorageError` for all that goes wrong later.
    """
    text = str(location)
    if is_remote(text):
        note_remote()
        return RemoteStore.from_url(text, read_only=read_only)
    return LocalStore(local_path(text), read_only=read_only)


def local_root(store: Store) -> Path | None:
    """The folder of a local store, None for a remote one."""
    return Path(store.root) if isinstance(store, LocalStore) else None


def read_bytes(store: Store, key: str) -> bytes | None:
    """The object under ``key``, None where there is none. Other I/O errors are raised."""
    return read_many(store, [key])[0]


def read_many(store: Store, keys: list[str]) -> list[bytes | None]:
    """The objects under ``keys``, None where there is none; asked for concurrently."""
    return ask_many(lambda key: get_bytes(store, key), keys)


def read_range(store: Store, key: str, part: range) -> bytes | None:
    """Some bytes of the object under ``key``, None where there is none."""
    return ask_many(lambda key: get_bytes(store, key, part), [key])[0]


async def get_bytes(store: Store, key: str, part: range | None = None) -> bytes | None:
    """The object under ``key`` or some of its bytes, None where there is none."""
    wanted = None if part is None else RangeByteRequest(part.start, part.stop)
    try:
        value = await store.get(key, default_buffer_prototype(), wanted)
    except (FileNotFoundError, NotADirectoryError):  # the whole store is not there
        return None
    return None if value is None else value.to_bytes()


def object_sizes(store: Store, keys: list[str]) -> list[int | None]:
    """Bytes of each object, None where there is none; asked for concurrently."""

    async def size(key: str) -> int | None:
        try:
            return await store.getsize(key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    return ask_many(size, keys)


def ask_many(ask: Callable[[str], Awaitable[_T]], keys: list[str]) -> list[_T]:
    """What ``ask`` gives for every key, several at a time, in the order of the keys."""

    async def gather() -> list[_T]:
        found: dict[int, _T] = {}
        todo = iter(enumerate(keys))

        async def worker() -> None:
            for place, key in todo:
                found[place] = await ask(key)

        # A task for each key would take some kilobytes each, of millions of keys.
        tasks = [asyncio.ensure_future(worker()) for _ in range(min(_CONCURRENCY, len(keys)))]
        try:
            await asyncio.gather(*tasks)
            return [found[place] for place in range(len(keys))]
        except BaseException:
            # Nothing goes on in the background: what failed may be the right to write.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    return sync(gather())


def list_keys(store: Store, prefix: str) -> list[str]:
    """All keys below ``prefix``, sorted."""

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sorted(sync(collect()))


def delete_object(store: Store, key: str) -> None:
    """Remove the object under exactly this ``key``; nothing happens where there is none."""
    sync(store.delete(key))


def write_many(store: Store, objects: dict[str, bytes]) -> None:
    """Write objects of a remote store, several at a time; each is there wholly or not."""

    async def write(key: str) -> None:
        await store.set(key, default_buffer_prototype().buffer.from_bytes(objects[key]))

    ask_many(write, list(objects))


def write_from_file(store: Store, key: str, path: Path) -> None:
    """Write an object of a remote store from a file, of which memory holds no more than is on its way."""
    data: Any = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    sync(store.set(key, default_buffer_prototype().buffer.from_array_like(data)))


def write_durably(store: Store, key: str, data: bytes) -> None:
    """Write one object so that it is either wholly there or not, and survives a power cut.

    Raises :class:`FileNotFoundError` where the folder of a local store is not there (any more).
    """
    root = local_root(store)
    if root is None:
        write_many(store, {key: data})
        return
    path = root / key
    make_folders(root, path.parent)
    try:
        write_file(path, data)
    except OSError as error:
        if path.is_dir():
            raise KDCacheError(
                f"{path} is a folder where the store has a file: move it away, and run the same command again"
            ) from error
        raise


def make_folders(root: Path, folder: Path) -> None:
    """The folders of an object below the root, which itself is never made: it may have been unmounted."""
    if folder == root or folder.is_dir():
        return
    make_folders(root, folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)
