"""Writing an object only where none is, or only where it still is what was read: what claims are made of.

S3 has conditional puts (``If-None-Match: *``, ``If-Match``), also MinIO and R2. The other file systems
of fsspec are asked for an exclusive creation; a replacement there compares what it reads just before.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from cache_builder.format.errors import StorageError
from cache_builder.format.remote import RemoteStore, storage_failures
from cache_builder.format.store import read_bytes

_T = TypeVar("_T")

_REFUSED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_UNKNOWN_CONDITION = {"NotImplemented", "501"}
_MOST_LISTED = 1000


@dataclass(frozen=True)
class Tagged:
    """An object as it was read or written, with what names this version of it."""

    data: bytes
    tag: str | None
    """S3's ETag; None where the store has no such thing."""


def create_object(store: Store, key: str, data: bytes) -> Tagged | None:
    """Write an object where there is none; None, and nothing is changed, where there is one."""
    try:
        tag = _answer(store, key, _put_new(store, key, data))
    except (OSError, StorageError) as error:
        return _unless_ours(store, key, data, error)
    return Tagged(data, tag)


def replace_object(store: Store, key: str, data: bytes, seen: Tagged) -> Tagged | None:
    """Write an object in place of the version that was seen; None where it is another one by now, or gone."""
    try:
        if _is_s3(store) and seen.tag is not None:
            tag = _answer(store, key, _put_s3(store, key, data, IfMatch=seen.tag))
        elif read_bytes(store, key) != seen.data:
            return None
        else:
            sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
            tag = None
    except FileNotFoundError:
        return None
    except (OSError, StorageError) as error:
        return _unless_ours(store, key, data, error)
    return Tagged(data, tag)


def read_tagged(store: Store, key: str) -> Tagged | None:
    """An object and its version; None where there is none."""
    if not _is_s3(store):
        data = read_bytes(store, key)
        return None if data is None else Tagged(data, None)
    try:
        return _answer(store, key, _get_s3(store, key))
    except FileNotFoundError:
        return None


def first_keys(store: Store, most: int) -> list[str]:
    """The first keys below the root of a store, at most so many: a bucket may hold millions.

    An object that only stands for the folder itself, as S3 consoles make them, is left out.
    """
    keys = _answer(store, "", _list_s3(store, most + 1) if _is_s3(store) else _list(store))
    return sorted(key for key in keys if key.strip("/"))[:most]


def is_object(store: Store) -> bool:
    """Whether the root of a remote store is itself an object, so that nothing should lie below it."""
    if not isinstance(store, RemoteStore):
        return False
    return bool(_answer(store, "", store.fs._isfile(store.path)))


def parent_stores(store: Store) -> list[Store]:
    """The stores of all folders above the root of a remote one, the bucket first."""
    if not isinstance(store, RemoteStore):
        return []
    parts = [part for part in store.path.split("/") if part]
    lead = "/" if store.path.startswith("/") else ""
    above = [lead + "/".join(parts[:count]) for count in range(1, len(parts))]
    return [RemoteStore(store.fs, read_only=True, path=path) for path in above]


def _answer(store: Store, key: str, asking: Coroutine[Any, Any, _T]) -> _T:
    """What a file system answers; a remote one that fails is a :class:`StorageError`."""
    if not isinstance(store, RemoteStore):
        return sync(asking)
    with storage_failures(lambda: store.url(key)):
        return sync(asking)


def _unless_ours(store: Store, key: str, data: bytes, error: OSError | StorageError) -> Tagged | None:
    """What a put that failed came to: one that is repeated after a lost answer finds its own object."""
    found = read_tagged(store, key)
    if found is not None and found.data == data:
        return found
    if isinstance(error, FileExistsError) or _code(error) in _REFUSED:
        return None
    raise error


def _code(error: BaseException) -> str:
    """S3's word for what is wrong, which lies at the beginning of the chain."""
    cause: BaseException | None = error
    while cause is not None:
        response: dict[str, Any] = getattr(cause, "response", None) or {}
        if response:
            return str(response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""


def _is_s3(store: Store) -> bool:
    return isinstance(store, RemoteStore) and hasattr(store.fs, "_call_s3")


def _s3_address(store: Store, key: str) -> tuple[Any, str, str]:
    assert isinstance(store, RemoteStore)
    bucket, path, _ = store.fs.split_path(f"{store.path}/{key}")
    return store.fs, bucket, path


async def _put_new(store: Store, key: str, data: bytes) -> str | None:
    if _is_s3(store):
        try:
            return await _put_s3(store, key, data, IfNoneMatch="*")
        except OSError as error:
            if _code(error) not in _UNKNOWN_CONDITION:
                raise
        # A server without conditions: the best it can do.
        if await store.exists(key):
            raise FileExistsError(key)
        return await _put_s3(store, key, data)
    if not isinstance(store, RemoteStore):
        if await store.exists(key):
            raise FileExistsError(key)
        await store.set(key, default_buffer_prototype().buffer.from_bytes(data))
        return None
    await store.fs._pipe_file(f"{store.path}/{key}", data, mode="create")
    return None


async def _put_s3(store: Store, key: str, data: bytes, **condition: str) -> str | None:
    fs, bucket, path = _s3_address(store, key)
    answer = await fs._call_s3("put_object", Bucket=bucket, Key=path, Body=data, **condition)
    fs.invalidate_cache(f"{bucket}/{path}")
    tag: str | None = answer.get("ETag")
    return tag


async def _get_s3(store: Store, key: str) -> Tagged:
    fs, bucket, path = _s3_address(store, key)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=path)
    async with answer["Body"] as body:
        return Tagged(await body.read(), answer.get("ETag"))


async def _list_s3(store: Store, most: int) -> list[str]:
    fs, bucket, prefix = _s3_address(store, "")
    keys: list[str] = []
    more: dict[str, str] = {}
    while len(keys) < most:
        count = min(most - len(keys), _MOST_LISTED)
        answer = await fs._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=count, **more)
        keys += [entry["Key"].removeprefix(prefix) for entry in answer.get("Contents", [])]
        if not answer.get("IsTruncated"):
            break
        more = {"ContinuationToken": answer["NextContinuationToken"]}
    return keys


async def _list(store: Store) -> list[str]:
    try:
        return [key async for key in store.list_prefix("")]
    except FileNotFoundError:
        return []
