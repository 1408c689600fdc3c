"""Bytes by key over a Zarr store: what commits, sizes and durable writes need beyond Zarr's arrays."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore


def open_store(location: str | Path, *, read_only: bool) -> Store:
    """A Zarr store for a local path or an fsspec URL such as ``s3://bucket/cache.zarr``."""
    text = str(location)
    if "://" in text and not text.startswith("file://"):
        return FsspecStore.from_url(text, read_only=read_only)
    return LocalStore(Path(text.removeprefix("file://")), read_only=read_only)


def local_root(store: Store) -> Path | None:
    """The folder of a local store, None for a remote one."""
    return Path(store.root) if isinstance(store, LocalStore) else None


def read_bytes(store: Store, key: str) -> bytes | None:
    """The object under ``key``, None where there is none. Other I/O errors are raised."""
    value = sync(store.get(key, default_buffer_prototype()))
    return None if value is None else value.to_bytes()


def object_sizes(store: Store, keys: list[str]) -> list[int | None]:
    """Bytes of each object, None where there is none; asked for concurrently."""

    async def size(key: str) -> int | None:
        try:
            return await store.getsize(key)
        except FileNotFoundError:
            return None

    async def gather() -> list[int | None]:
        return list(await asyncio.gather(*(size(key) for key in keys)))

    return sync(gather())


def list_keys(store: Store, prefix: str) -> list[str]:
    """All keys below ``prefix``, sorted."""

    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sorted(sync(collect()))


def write_durably(store: Store, key: str, data: bytes) -> None:
    """Write one object so that it is either wholly there or not, and survives a power cut."""
    root = local_root(store)
    if root is None:
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
        return
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    fsync_folder(path.parent)


def fsync_object(store: Store, key: str) -> None:
    """Force an object that Zarr wrote to the disk (Zarr renames, but does not fsync)."""
    root = local_root(store)
    if root is not None:
        _fsync(root / key, os.O_RDONLY)
        fsync_folder((root / key).parent)


def fsync_folder(folder: Path) -> None:
    """Force the entries of a folder to the disk."""
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
