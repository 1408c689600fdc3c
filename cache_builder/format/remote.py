"""Zarr's store over fsspec, whose failures say what, where and what to do.

Every file system raises its own exceptions (botocore's and aiohttp's are not even OSErrors). Here all of them
become :class:`StorageError`, except that an object is not there. What went wrong on the way says nothing
about the data: nobody must take it for damage.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager

from fsspec.asyn import AsyncFileSystem
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from cache_builder.format.errors import KDCacheError, StorageError

_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

_CREDENTIALS = (
    "no credentials for it were found or they cannot be read: for s3:// set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a bucket that everybody may read, FSSPEC_S3_ANON=true"
)
_REFUSED = "it refuses access: look at the credentials and at what they may do there"
_UNREACHABLE = "nothing answers: look at the network, at the host's name and at the endpoint"
_SLOW = "it did not answer in time: look at the network, or try again later"
_CUT_SHORT = "the answer was cut short or changed on the way: try again; does a proxy stand between?"

_MEANINGS: tuple[tuple[frozenset[str], str, bool], ...] = (
    (
        frozenset({
            "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
            "NoAuthTokenError", "TokenRetrievalError", "SSOError", "ConfigParseError",
            "DefaultCredentialsError", "RefreshError",
        }),
        _CREDENTIALS,
        False,
    ),
    (frozenset({"PermissionError", "Unauthorized", "ClientAuthenticationError"}), _REFUSED, False),
    (frozenset({"InvalidProxiesConfigError", "ProxyConnectionError", "ClientHttpProxyError",
                "ClientProxyConnectionError"}), "the proxy of the environment does not answer", True),
    (
        frozenset({"ConnectTimeoutError", "ReadTimeoutError", "TimeoutError", "ServerTimeoutError"}),
        _SLOW, True,
    ),
    (
        frozenset({
            "ResponseStreamingError", "IncompleteReadError", "ClientPayloadError", "FlexibleChecksumError",
            "ServerDisconnectedError", "ContentLengthError", "ChecksumError",
        }),
        _CUT_SHORT,
        True,
    ),
    (
        frozenset({"EndpointConnectionError", "ClientConnectorError", "ConnectionError", "gaierror",
                   "HTTPClientError", "ClientConnectionError"}),
        _UNREACHABLE,
        True,
    ),
    (frozenset({"ValueError"}), "the address is not one that it understands", False),
)  # fmt: skip
"""Names of exception classes (also of their parents), what they mean, whether waiting may help."""


def storage_error(where: str, error: BaseException) -> StorageError:
    """A :class:`StorageError` that says what an exception of a file system means; ``where``: URL or path."""
    names = {kind.__name__ for kind in type(error).__mro__}
    meanings = ((meaning, passes) for known, meaning, passes in _MEANINGS if known & names)
    meaning, passes = next(meanings, ("it failed", True))
    status = getattr(error, "status", None)  # of an HTTP server
    if status in (401, 403):
        meaning, passes = _REFUSED, False
    said = " ".join((str(error) or type(error).__name__).split())[:300]
    return StorageError(
        f"{where} cannot be reached or read: {meaning} ({said}){_endpoint(where)}", waiting_helps=passes
    )


def _endpoint(where: str) -> str:
    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f"; the endpoint is {found}" if found and where.startswith("s3") else ""


@contextmanager
def storage_failures(where: str | Callable[[], str]) -> Iterator[None]:
    """Turn whatever a file system raises into :class:`StorageError`; that nothing is there passes through."""
    try:
        yield
    except (KDCacheError, FileExistsError):
        raise
    except _MISSING as error:
        if "NoSuchBucket" in type(error.__cause__).__name__ or "bucket does not exist" in str(error):
            place = where if isinstance(where, str) else where()
            raise StorageError(
                f"{place}: there is no bucket of this name; look at the URL, or make the bucket first",
                waiting_helps=False,
            ) from error
        raise
    except Exception as error:
        raise storage_error(where if isinstance(where, str) else where(), error) from error


class RemoteStore(FsspecStore):
    """Objects of an fsspec file system. Also reads from servers that do not know ranges of bytes."""

    def __init__(
        self,
        fs: AsyncFileSystem,
        read_only: bool = False,
        path: str = "/",
        allowed_exceptions: tuple[type[Exception], ...] = (),
    ) -> None:
        """What is not there is raised, and looked at by :meth:`get`: it may be the whole bucket."""
        super().__init__(fs, read_only, path, ())

    def url(self, key: str = "") -> str:
        """Of an object, for people."""
        protocol = self.fs.protocol if isinstance(self.fs.protocol, str) else self.fs.protocol[0]
        path = "/".join(part for part in (self.path.rstrip("/"), key) if part)
        return path if "://" in path else f"{protocol}://{path.lstrip('/')}"

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The object or a range of it, None where there is none."""
        try:
            with storage_failures(lambda: self.url(key)):
                value = await super().get(key, prototype, byte_range)
        except _MISSING:
            return None
        return value if value is None or byte_range is None else _only(value, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As :meth:`get`, of several."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write an object, in one piece."""
        with storage_failures(lambda: self.url(key)):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with storage_failures(lambda: self.url(key)):
            await super().delete(key)

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        with storage_failures(lambda: self.url(key)):
            return await super().exists(key)

    async def getsize(self, key: str) -> int:
        """Bytes of an object."""
        with storage_failures(lambda: self.url(key)):
            return await super().getsize(key)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a prefix."""
        with storage_failures(lambda: self.url(prefix)):
            async for key in super().list_prefix(prefix):
                yield key
        # A file system keeps what it listed, and would not find what another process writes there later.
        self.fs.invalidate_cache()


def _only(value: Buffer, asked: ByteRequest) -> Buffer:
    """The bytes that were asked for, where a server sent the whole object in their place."""
    data = value.as_array_like()
    match asked:
        case RangeByteRequest(start, end) if len(value) > end - start:
            kept = data[start:end]
        case SuffixByteRequest(suffix) if len(value) > suffix:
            kept = data[len(value) - suffix :]
        case OffsetByteRequest() | _:
            return value
    return type(value).from_array_like(kept)
