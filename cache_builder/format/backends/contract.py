"""What a remote store needs of a library: bytes by key, conditional puts and listings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest

from cache_builder.format.errors import StorageError

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Entry:
    """An object as a listing names it."""

    key: str
    size: int | None
    """In bytes; None where the listing does not say."""
    tag: str | None
    """Of its version, as far as the listing says: S3's is the MD5 of what was put in one piece."""


class OddKeyError(StorageError):
    """A listing met a key that the library cannot name, so that it ends there."""

    def __init__(self, url: str, key: str) -> None:
        """``url``: of what was listed; ``key``: as the store has it."""
        super().__init__(
            f"{url} cannot be listed: it holds an object with the key {key!r}, which has an empty part; we "
            "write no such keys, so move it away",
            waiting_helps=False,
        )
        self.key = key


class Backend(Protocol):
    """One bucket, container or server. Keys are relative to it.

    Each request is made once and has a deadline; whoever calls tries again. Every method raises
    :class:`FileNotFoundError` where the object is not there, and :class:`StorageError` for all that says
    nothing about the object: the store is away, refuses access, or its answer was cut short.
    """

    root: str
    """The URL that keys are relative to, without a slash at its end."""
    is_read_only: bool
    """Whether it can only be read, as a web server."""

    async def get(self, key: str, part: ByteRequest | None = None) -> Bytes:
        """An object, or as much of a part of it as there is."""

    async def get_tagged(self, key: str) -> tuple[bytes, str]:
        """An object, and the tag of this version of it."""

    async def put(self, key: str, data: Bytes) -> None:
        """Write an object; it is there wholly, or as it was."""

    async def create(self, key: str, data: bytes) -> str:
        """Write an object where there is none, and give its tag; else :class:`FileExistsError`."""

    async def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write over the version of this tag, and give the new tag; else :class:`FileExistsError`."""

    async def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    async def size(self, key: str) -> int:
        """Bytes of an object."""

    def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix, as they arrive."""

    async def entries(self, prefix: str) -> Sequence[Entry]:
        """The objects whose keys begin with a prefix, which ends with a slash or is empty."""


def part_of(data: Bytes, part: ByteRequest) -> Bytes:
    """The bytes that were asked for, of a whole object."""
    view = memoryview(data)
    match part:
        case RangeByteRequest(start, end):
            return view[start:end]
        case OffsetByteRequest(offset):
            return view[offset:]
        case SuffixByteRequest(suffix):
            return view[max(0, len(view) - suffix) :]
    raise ValueError(f"{part!r} is no part of an object")
