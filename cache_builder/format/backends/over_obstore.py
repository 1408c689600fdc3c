"""Object stores over obstore, which speaks the protocols of S3, Google Cloud Storage and Azure.

obstore makes each request once: trying again, and saying so meanwhile, is done above it for all libraries
alike (:mod:`cache_builder.format.waiting`). Zarr's own ``ObjectStore`` over obstore takes a failed request
for a missing object in places and has no conditional replacement, so the library is called directly.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore import exceptions
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from cache_builder.format.backends import causes
from cache_builder.format.backends.causes import Cause, storage_error
from cache_builder.format.backends.contract import Bytes, Entry, OddKeyError, part_of
from cache_builder.format.errors import KDCacheError, StorageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SLOWEST_BYTES_PER_S = 2**16
"""A writing gets one more second for so many bytes."""
_PART_BYTES = 2**24
_LARGEST_SINGLE_PUT = 2**26
"""Larger objects are written in parts of ``_PART_BYTES``."""
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')

_BY_TEXT: tuple[tuple[str, Cause], ...] = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", causes.NO_BUCKET),
    (r"BareRedirect|PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint", causes.REGION),
    (
        r"169\.254\.169\.254|metadata\.google|oauth2|ExpiredToken|InvalidToken|[Cc]redential|MissingAccount",
        causes.CREDENTIALS,
    ),
    (r"status: (401|403)", causes.REFUSED),
    (r"status: (408|504)", causes.SLOW),
    (r"status: (409|429|5\d\d)", causes.BUSY),
    (r"status: 4\d\d", causes.UNFIT),
    (r"kind: Timeout|TimedOut", causes.SLOW),
    (r"certificate|UnknownIssuer", causes.CERTIFICATE),
    (r"dns error|failed to lookup", causes.UNKNOWN_HOST),
    (r"tunnel|[Pp]roxy", causes.PROXY),
    (r"kind: Connect", causes.UNREACHABLE),
    (r"kind: (Body|Interrupted|Request|Decode)|UnexpectedEof|MissingContentLength", causes.CUT_SHORT),
    (r"InvalidPath|Could not parse path", causes.ADDRESS),
)
"""What obstore's messages hold, the first that fits counts, and what it means."""


_T = TypeVar("_T")
_ODD_KEY = re.compile(r'[Pp]ath:? "([^"]+)"')


class ObstoreBackend:
    """One bucket or container."""

    is_read_only = False

    def __init__(
        self, root: str, reading: ObjectStore, writing: ObjectStore, *, timeout_s: float, tag: str = "e_tag"
    ) -> None:
        """``reading`` gives up a request when nothing arrives for a while, which ``writing`` must not.

        ``tag``: what conditions refer to, ``e_tag`` or ``version``.
        """
        _check_process(root)
        self.root = root
        self._reading, self._writing = reading, writing
        self._timeout_s = timeout_s
        self._tag = tag
        self._knows_ranges = True
        self._tags_are_md5 = tag == "e_tag"

    async def get(self, key: str, part: ByteRequest | None = None) -> Bytes:
        """An object, or as much of a part of it as there is."""
        if part is None:
            return (await self._whole(key))[0]
        if self._knows_ranges:
            with self._failures(key):
                try:
                    return await self._part(key, part)
                except exceptions.BaseError as error:
                    if _is_beyond_the_end(error):
                        return b""
                    if not _knows_no_ranges(error):
                        raise
                self._knows_ranges = False
        return part_of((await self._whole(key))[0], part)

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object, and the tag of this version of it."""
        data, meta = await self._whole(key)
        return data, str(meta[self._tag])

    async def put(self, key: str, data: Bytes) -> None:
        """Write an object; it is there wholly, or as it was."""
        with self._failures(key):
            await _ended(self._put(key, data, "overwrite"))

    async def create(self, key: str, data: bytes) -> str:
        """Write an object where there is none, and give its tag; else :class:`FileExistsError`."""
        with self._failures(key):
            try:
                return await _ended(self._put(key, data, "create"))
            except exceptions.BaseError as error:
                if "status: 501" not in str(error):
                    raise
            # A server without conditions: the best it can do.
            with suppress(FileNotFoundError):
                await obstore.head_async(self._reading, key)
                raise FileExistsError(key)
            return await _ended(self._put(key, data, "overwrite"))

    async def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write over the version of this tag, and give the new tag; else :class:`FileExistsError`."""
        with self._failures(key):
            try:
                return await _ended(self._put(key, data, {self._tag: tag}))
            except exceptions.BaseError as error:
                if "status: 501" not in str(error):
                    raise
            # As above.
            if (await self._whole(key))[1][self._tag] != tag:
                raise FileExistsError(key)
            return await _ended(self._put(key, data, "overwrite"))

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._failures(key), suppress(FileNotFoundError):
            await _ended(self._deleted(key))

    async def size(self, key: str) -> int:
        """Bytes of an object."""
        with self._failures(key):
            return (await obstore.head_async(self._reading, key))["size"]

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix, as they arrive."""
        folder = prefix.rpartition("/")[0]
        with self._failures(prefix):
            async for entries in obstore.list(self._reading, prefix=folder or None):
                for entry in entries:
                    if entry["path"].startswith(prefix):
                        yield entry["path"]

    async def entries(self, prefix: str) -> Sequence[Entry]:
        """The objects whose keys begin with a prefix, which ends with a slash or is empty."""
        found: list[Entry] = []
        with self._failures(prefix):
            async for some in obstore.list(self._reading, prefix=prefix.rstrip("/") or None):
                found += [Entry(one["path"], one["size"], (one["e_tag"] or "").strip('"')) for one in some]
        return [entry for entry in found if entry.key.startswith(prefix)]

    async def _whole(self, key: str) -> tuple[bytes, Any]:
        """An object and what is known of it. Bytes that do not give their MD5 are asked for once more.

        Where they do not again, the tags of this bucket are no MD5 (it encrypts with keys of its own).
        """
        with self._failures(key):
            data, meta = await self._got(key)
            if self._tags_are_md5 and not _fits(data, meta["e_tag"]):
                again, meta = await self._got(key)
                if data != again and not _fits(again, meta["e_tag"]):
                    raise storage_error(
                        self._url(key), causes.CUT_SHORT, "its bytes are not those of its ETag"
                    )
                self._tags_are_md5 = _fits(again, meta["e_tag"])
                data = again
            return data, meta

    async def _got(self, key: str) -> tuple[bytes, Any]:
        answer = await obstore.get_async(self._reading, key)
        return bytes(await answer.bytes_async()), answer.meta

    async def _part(self, key: str, part: ByteRequest) -> Bytes:
        if isinstance(part, RangeByteRequest):
            if part.end <= part.start:
                return b""
            return memoryview(
                await obstore.get_range_async(self._reading, key, start=part.start, end=part.end)
            )
        answer = await obstore.get_async(self._reading, key, options={"range": await self._range(key, part)})
        return memoryview(await answer.bytes_async())

    async def _range(self, key: str, part: ByteRequest) -> Any:
        if isinstance(part, OffsetByteRequest):
            return {"offset": part.offset}
        assert isinstance(part, SuffixByteRequest)
        if not self.root.startswith(("az://", "abfss://")):
            return {"suffix": part.suffix}
        # Azure knows no ranges that are counted from the end.
        size = (await obstore.head_async(self._reading, key))["size"]
        return {"offset": max(0, size - part.suffix)}

    async def _deleted(self, key: str) -> None:
        async with asyncio.timeout(self._timeout_s):
            await obstore.delete_async(self._writing, key)

    async def _put(self, key: str, data: Bytes, mode: Any) -> str:
        in_parts = mode == "overwrite" and len(data) > _LARGEST_SINGLE_PUT
        try:
            async with asyncio.timeout(self._timeout_s + len(data) / SLOWEST_BYTES_PER_S):
                done = await obstore.put_async(
                    self._writing, key, data, mode=mode, use_multipart=in_parts, chunk_size=_PART_BYTES
                )
        except exceptions.AlreadyExistsError as error:
            # S3: another put or deletion of the object at this instant. Azure's 409 says that it is there.
            if "ConditionalRequestConflict" in str(error):
                raise storage_error(self._url(key), causes.BUSY, _said(error)) from error
            raise FileExistsError(key) from error
        except exceptions.PreconditionError as error:
            if "404 Not Found" in str(error):
                raise FileNotFoundError(key) from error
            raise FileExistsError(key) from error
        return str(done[self._tag])  # type: ignore[literal-required]

    def _url(self, key: str) -> str:
        return f"{self.root}/{key}"

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        _check_process(self._url(key))
        try:
            yield
        except (KDCacheError, FileExistsError):
            raise
        except exceptions.InvalidPathError as error:
            # Of a listing; keys of ours have no empty part.
            found = _ODD_KEY.search(str(error))
            raise OddKeyError(self._url(key), found[1] if found else key) from error
        except FileNotFoundError as error:
            if _cause(error) is causes.NO_BUCKET:
                raise storage_error(self._url(key), causes.NO_BUCKET, _said(error)) from error
            raise
        except TimeoutError as error:
            raise storage_error(self._url(key), causes.SLOW, f"no answer in {self._timeout_s:g} s") from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise storage_error(self._url(key), _cause(error), _said(error)) from error


_first_process: int | None = None
"""Where obstore's threads run. They do not go along when a process forks: a request would never end."""


async def _ended(change: Coroutine[Any, Any, _T]) -> _T:
    """The answer to a change of the store. Who cancels it waits until it has ended, by its deadline at last.

    The library goes on with a request that nobody waits for: it would change the store some time later.
    """
    task = asyncio.ensure_future(change)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _check_process(where: str) -> None:
    global _first_process
    _first_process = _first_process or os.getpid()
    if os.getpid() != _first_process:
        raise StorageError(
            f"{where} cannot be reached from here: this process was forked from one that had an object store "
            'open; start it by multiprocessing.get_context("spawn")',
            waiting_helps=False,
        )


def _cause(error: Exception) -> Cause:
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return causes.REFUSED
    text = str(error)
    return next((cause for pattern, cause in _BY_TEXT if re.search(pattern, text)), causes.UNCLEAR)


def _said(error: Exception) -> str:
    """What server or system said; obstore's message has it between URLs, XML and debug text."""
    shown, _, debug = str(error).partition("Debug source")
    last = shown.rpartition(" - ")[2].removeprefix("Server returned non-2xx status code: ")
    last = re.sub(r"<\?xml.*|<Error>.*|<!DOCTYPE.*|<html.*", "", last, flags=re.DOTALL | re.IGNORECASE)
    patterns = (r"<Code>(.*?)</Code>", r"<Message>(.*?)</Message>")
    found = [match.group(1) for pattern in patterns if (match := re.search(pattern, shown))]
    found += re.findall(r'message: "([^"]+)"', debug)[-1:] if "HTTP error" in last else []
    return ": ".join([last.strip().rstrip(":"), *found])


def _is_beyond_the_end(error: Exception) -> bool:
    return "416 Range Not Satisfiable" in str(error)


def _knows_no_ranges(error: Exception) -> bool:
    return isinstance(error, exceptions.NotSupportedError) or "NotPartial" in str(error)


def _fits(data: bytes, tag: str | None) -> bool:
    """Whether bytes may be those of an ETag, which is an MD5 unless the object was written in parts."""
    digest = _MD5.fullmatch(tag or "")
    return digest is None or hashlib.md5(data, usedforsecurity=False).hexdigest() == digest.group(1)
