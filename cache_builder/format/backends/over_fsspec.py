"""Remote stores over fsspec: web servers, and what obstore has no client for (hf://, memory://, ftp:// …).

``http(s)://`` is here because obstore's client of web servers refuses answers without Content-Length, which
servers give that compress on the way, and lists by WebDAV alone; fsspec reads the links of a folder's page.
These stores have no conditional puts. A creation is an exclusive one where the file system has that, and a
replacement compares what it reads just before.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore

from cache_builder.format.backends import causes
from cache_builder.format.backends.causes import Cause, storage_error
from cache_builder.format.backends.contract import Bytes, Entry, part_of
from cache_builder.format.backends.processes import check_process
from cache_builder.format.errors import KDCacheError

_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)

_BY_CLASS: tuple[tuple[frozenset[str], Cause], ...] = (
    (frozenset({"DefaultCredentialsError", "RefreshError", "NoCredentialsError"}), causes.CREDENTIALS),
    (frozenset({"PermissionError", "Unauthorized", "ClientAuthenticationError"}), causes.REFUSED),
    (
        frozenset({"ProxyConnectionError", "ClientHttpProxyError", "ClientProxyConnectionError"}),
        causes.PROXY,
    ),
    (frozenset({"ClientConnectorCertificateError", "SSLCertVerificationError"}), causes.CERTIFICATE),
    (frozenset({"TimeoutError", "ServerTimeoutError"}), causes.SLOW),
    (
        frozenset(
            {"IncompleteReadError", "ClientPayloadError", "ServerDisconnectedError", "ContentLengthError"}
        ),
        causes.CUT_SHORT,
    ),
    (frozenset({"ClientConnectorDNSError", "gaierror"}), causes.UNKNOWN_HOST),
    (frozenset({"ClientConnectorError", "ConnectionError", "ClientConnectionError"}), causes.UNREACHABLE),
    (frozenset({"ValueError"}), causes.ADDRESS),
)
"""Names of exception classes (also of their parents), and what they mean; the first that fits counts."""


class FsspecBackend:
    """A file system of fsspec, from one of its folders on."""

    def __init__(self, root: str, *, timeout_s: float) -> None:
        """``root``: a URL. Raises :class:`ValueError` or :class:`ImportError` for an unknown protocol."""
        check_process(root)
        self.root = root
        self.is_read_only = root.startswith(("http://", "https://"))
        files, path = _opened(root, timeout_s)
        self._store = FsspecStore(files, path=path, allowed_exceptions=())

    async def get(self, key: str, part: ByteRequest | None = None) -> Bytes:
        """An object, or as much of a part of it as there is."""
        with self._failures(key):
            value = await self._store.get(key, default_buffer_prototype(), part)
        assert value is not None  # what is missing raises
        data = value.as_numpy_array().data
        return data if part is None or _fits(len(data), part) else part_of(data, part)

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object, and the tag of this version of it."""
        data = bytes(await self.get(key))
        return data, _tag(data)

    async def put(self, key: str, data: Bytes) -> None:
        """Write an object."""
        with self._failures(key):
            await self._store.fs._pipe_file(self._path(key), bytes(data))

    async def create(self, key: str, data: bytes) -> str:
        """Write an object where there is none, and give its tag; else :class:`FileExistsError`."""
        with self._failures(key):
            await self._store.fs._pipe_file(self._path(key), data, mode="create")
        return _tag(data)

    async def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write over the version of this tag, and give the new tag; else :class:`FileExistsError`."""
        if (await self.get_tagged(key))[1] != tag:
            raise FileExistsError(key)
        await self.put(key, data)
        return _tag(data)

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._failures(key), suppress(*_MISSING):
            await self._store.fs._rm_file(self._path(key))  # `_rm` would expand the characters * ? [ in a key

    async def size(self, key: str) -> int:
        """Bytes of an object; a folder has none."""
        with self._failures(key):
            found = await self._store.fs._info(self._path(key))
        if found["type"] != "file":
            raise FileNotFoundError(key)
        return int(found["size"])

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix."""
        folder, below = self._path(prefix.rpartition("/")[0]).rstrip("/"), self._path("").rstrip("/")
        with self._failures(prefix), suppress(*_MISSING):
            for path in await self._found(folder):
                key = path.removeprefix(below).lstrip("/")
                if key.startswith(prefix):
                    yield key

    async def entries(self, prefix: str) -> Sequence[Entry]:
        """The objects whose keys begin with a prefix, which ends with a slash or is empty."""
        folder, below = self._path(prefix).rstrip("/"), self._path("").rstrip("/")
        with self._failures(prefix), suppress(*_MISSING):
            return [
                Entry(path.removeprefix(below).lstrip("/"), known.get("size"), None)
                for path, known in (await self._found(folder)).items()
            ]
        return []

    async def _found(self, folder: str) -> dict[str, dict[str, Any]]:
        # A file system keeps what it listed, and would not find what another process wrote since.
        self._store.fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = await self._store.fs._find(folder, detail=True, on_error="raise")
        return found

    def _path(self, key: str) -> str:
        base = self._store.path
        return f"{base.rstrip('/')}/{key}" if base and key else base or key

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        check_process(f"{self.root}/{key}")
        try:
            yield
        except (KDCacheError, FileExistsError, FileNotFoundError):
            raise
        except _MISSING as error:
            raise FileNotFoundError(key) from error
        except Exception as error:
            raise storage_error(
                f"{self.root}/{key}", _cause(error), str(error) or type(error).__name__
            ) from error


def _opened(url: str, timeout_s: float) -> tuple[Any, str]:
    """The file system of a URL, which knows of no event loop yet, and the path there."""
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        from aiohttp import ClientTimeout

        times = ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        options = {"client_kwargs": {"timeout": times}}
    made = FsspecStore.from_url(url, storage_options=options)
    return made.fs, made.path


def _fits(length: int, part: ByteRequest) -> bool:
    """Whether an answer has the length that was asked for; a server without ranges sends the whole object."""
    match part:
        case RangeByteRequest(start, end):
            return length <= end - start
        case SuffixByteRequest(suffix):
            return length <= suffix
        case OffsetByteRequest() | _:
            return True


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cause(error: Exception) -> Cause:
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status", None)  # of an HTTP server
    if status in (401, 403):
        return causes.REFUSED
    if isinstance(status, int) and (status == 429 or status >= 500):
        return causes.BUSY
    return next((cause for known, cause in _BY_CLASS if known & names), causes.UNCLEAR)
