"""A folder of blocks: one file a block, with a checksum of it, shared by all processes of a user.

Any file may vanish at any time, by the eviction of another process or by the hand of the user: then it is a
block that is not there. No file is ever changed: it appears whole, under its name, by a rename.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import xxhash

_MAGIC = b"kdblock1"
_DIGEST_BYTES = 8
_HEAD_BYTES = len(_MAGIC) + _DIGEST_BYTES
_TOUCHED_EVERY_S = 60
"""A block that is used gets a new time so often: it decides which blocks go first."""
_SECTORS = 4096
"""What a file takes on a disk is a multiple of this."""
_TEMPORARY = ".part"
_ABANDONED_S = 600
"""A file that nobody finished in so many seconds was left behind by a process that died."""
_GROUP = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"[0-9a-f]{40}-(all|\d+-\d+)")
_PRIVATE = 0o700
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class BlockName:
    """What a block is called: an object of a cache, and which bytes of it."""

    object: str
    """Digest of the cache's identity, of where it lies, and of the object's key."""
    part: range | None
    """None = the whole object."""

    @classmethod
    def of(cls, cache_id: str, url: str, key: str, part: range | None) -> BlockName:
        """``url``: of the cache. ``key``: of the object in it."""
        told = "\n".join((cache_id, url, key)).encode(errors="surrogateescape")
        return cls(hashlib.blake2b(told, digest_size=20).hexdigest(), part)

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.object}-{'all' if self.part is None else f'{self.part.start}-{self.part.stop}'}"


@dataclass(frozen=True)
class BlockFile:
    """The file of a block, as eviction sees it."""

    path: str
    used: float
    """When the block was used last, in seconds since 1970."""
    size: int
    """Bytes that it takes on the disk."""


class DamagedBlockError(Exception):
    """The file of a block does not hold what was written to it."""


class BlockFolder:
    """The files of the blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def problem(self) -> str | None:
        """Why the folder, which is made where it is missing, cannot be used; None where it can be."""
        try:
            self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            return f"it cannot be made or looked at ({error.strerror or error})"
        if found.st_uid != os.geteuid():
            return "it belongs to another user"
        if found.st_mode & _WRITABLE_BY_OTHERS:
            return "other users may write to it: run `chmod go-w` on it"
        return None

    def has(self, name: BlockName) -> bool:
        """Whether a block has a file."""
        try:
            return self._path(name).exists()
        except OSError:
            return False

    def read(self, name: BlockName) -> memoryview | None:
        """The bytes of a block; None where it is not there.

        Raises :class:`DamagedBlockError`, after the file was removed, where it is not what was written.
        """
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                data = memoryview(file.read())
                if found.st_uid != os.geteuid():
                    return None
                if time.time() - found.st_mtime > _TOUCHED_EVERY_S:
                    with suppress(OSError):
                        os.utime(file.fileno())
        except OSError:
            return None
        block = data[_HEAD_BYTES:]
        if data[:_HEAD_BYTES] != _head(name, block):
            with suppress(OSError):
                path.unlink()
            raise DamagedBlockError(str(path))
        return block

    def write(self, name: BlockName, block: bytes | memoryview) -> None:
        """Keep a block; raises :class:`OSError` where that cannot be done."""
        path = self._path(name)
        temporary = f"{path}.{secrets.token_hex(8)}{_TEMPORARY}"
        try:
            descriptor = os.open(temporary, _NEW_FILE, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            descriptor = os.open(temporary, _NEW_FILE, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for part in (_head(name, block), block):
                    left = memoryview(part)
                    while left:
                        left = left[file.write(left) :]
            os.replace(temporary, path)  # noqa: PTH105 - as below
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - hundreds of small files at once
            raise

    def forget(self, objects: Iterable[str]) -> None:
        """Remove all blocks of some objects (see :attr:`BlockName.object`)."""
        for one in objects:
            for entry in _listed(self.path / one[:2]):
                if entry.name.startswith(f"{one}-"):
                    with suppress(OSError):
                        os.unlink(entry.path)  # noqa: PTH108 - as below

    def files(self) -> Iterator[BlockFile]:
        """The files of all blocks. What a process left behind half-written is removed on the way."""
        for group in _listed(self.path):
            if _GROUP.fullmatch(group.name):
                yield from filter(None, map(_looked_at, _listed(Path(group.path))))

    def _path(self, name: BlockName) -> Path:
        return self.path / name.object[:2] / name.file


def disk_bytes(size: int) -> int:
    """What the file of a block of so many bytes takes on the disk."""
    return -(-(size + _HEAD_BYTES) // _SECTORS) * _SECTORS


def _head(name: BlockName, block: bytes | memoryview) -> bytes:
    """What stands before the bytes of a block: it fits neither other bytes nor another name."""
    digest = xxhash.xxh3_64(name.file.encode())
    digest.update(block)
    return _MAGIC + digest.digest()


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _looked_at(entry: os.DirEntry[str]) -> BlockFile | None:
    """A block, or what may become one; None for everything else."""
    is_temporary = entry.name.endswith(_TEMPORARY)
    if not (is_temporary or _NAME.fullmatch(entry.name)):
        return None
    try:
        found = entry.stat(follow_symlinks=False)
        if is_temporary and time.time() - found.st_mtime > _ABANDONED_S:
            os.unlink(entry.path)  # noqa: PTH108 - hundreds of thousands of files
            return None
    except OSError:
        return None
    return BlockFile(entry.path, found.st_mtime, disk_bytes(found.st_size))
