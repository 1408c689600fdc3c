"""Zarr's store of remote objects: patient with a store that is away, and without knowledge of its library.

What goes wrong on the way says nothing about the data, so nobody must take it for damage: it is a
:class:`StorageError` that says what, where and what to do, and never "not there".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Self, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from cache_builder.format.backends.contract import Backend, Entry
from cache_builder.format.backends.opening import open_backend
from cache_builder.format.errors import ConfigError
from cache_builder.format.waiting import patiently

_T = TypeVar("_T")


class RemoteStore(Store):
    """The objects below a key of a bucket, a container or a web server."""

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, backend: Backend, path: str = "", *, read_only: bool = False) -> None:
        """``path``: what all keys begin with, without slashes around it; empty for the whole bucket."""
        super().__init__(read_only=read_only)
        self.backend = backend
        self.path = path

    @classmethod
    def from_url(cls, url: str, *, read_only: bool = False) -> Self:
        """The store at a URL; raises as :func:`open_backend`; :class:`ConfigError` to write to the web."""
        backend, path = open_backend(url)
        if backend.is_read_only and not read_only:
            raise ConfigError(
                f"{url} can only be read: write to a local path or an object store (s3://, gs://, az://)"
            )
        return cls(backend, path, read_only=read_only)

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same objects."""
        return type(self)(self.backend, self.path, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, bool]:
        return self.backend.root, self.path, self.read_only

    def __str__(self) -> str:
        return self.url()

    def __repr__(self) -> str:
        return f"RemoteStore({self.url()!r})"

    def __reduce__(self) -> tuple[Callable[..., RemoteStore], tuple[str, bool]]:
        # Clients have sockets and threads, which do not travel to other processes.
        return _reopened, (self.url(), self.read_only)

    def url(self, key: str = "") -> str:
        """Of an object, for people."""
        return "/".join(part for part in (self.backend.root, self.path, key) if part)

    def full_key(self, key: str) -> str:
        """An object's key in the bucket."""
        return "/".join(part for part in (self.path, key) if part)

    async def ask(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """What a request to the backend gives, made again where waiting may help."""
        return await patiently(self.backend.root, request)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The object or a range of it, None where there is none."""
        full = self.full_key(key)
        try:
            value = await self.ask(lambda: self.backend.get(full, byte_range))
        except FileNotFoundError:
            return None
        return prototype.buffer.from_bytes(value)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As :meth:`get`, of several."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, in one piece."""
        self._check_writable()
        full, data = self.full_key(key), value.as_numpy_array().data
        await self.ask(lambda: self.backend.put(full, data))

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._check_writable()
        full = self.full_key(key)
        await self.ask(lambda: self.backend.delete(full))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            await self.getsize(key)
        except FileNotFoundError:
            return False
        return True

    async def getsize(self, key: str) -> int:
        """Bytes of an object; raises :class:`FileNotFoundError` where there is none."""
        full = self.full_key(key)
        return await self.ask(lambda: self.backend.size(full))

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix.

        A listing that breaks off begins again, and goes on behind what was there already.
        """
        lead = f"{self.path}/" if self.path else ""
        given: set[str] = set()
        keys = self.backend.list(lead + prefix)

        async def following() -> str | None:
            nonlocal keys
            try:
                return await anext(keys, None)
            except BaseException:
                keys = self.backend.list(lead + prefix)
                raise

        while (full := await self.ask(following)) is not None:
            key = full.removeprefix(lead)
            if key and key not in given:
                given.add(key)
                yield key

    async def entries(self) -> Sequence[Entry]:
        """Every object, with what a listing says of it; keys are relative to the store."""
        lead = f"{self.path}/" if self.path else ""
        found = await self.ask(lambda: self.backend.entries(lead))
        return [replace(entry, key=entry.key.removeprefix(lead)) for entry in found]

    def list(self) -> AsyncIterator[str]:
        """All keys."""
        return self.list_prefix("")

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of the objects and folders right below a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        given: set[str] = set()
        async for key in self.list_prefix(folder):
            name = key.removeprefix(folder).partition("/")[0]
            if name not in given:
                given.add(name)
                yield name


def _reopened(url: str, read_only: bool) -> RemoteStore:
    return RemoteStore.from_url(url, read_only=read_only)
