"""Files of a data set on an object store or a web server: what ``pathlib`` does for those on a disk.

Bytes go through the same stores as caches do, so that what goes wrong on the way is a :class:`StorageError`
with its cause and a remedy, and never taken for an unreadable picture. The library universal-pathlib was
weighed and left: its files raise what each backend raises.
"""

from __future__ import annotations

import fnmatch
import io
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from zarr.abc.store import Store

from cache_builder.format.conditional import first_keys
from cache_builder.format.errors import DataError
from cache_builder.format.locations import is_remote
from cache_builder.format.store import list_keys, object_sizes, open_store, read_many, read_range

_URL = re.compile(r"(\w[\w+.-]*://[^/]+)/?(.*)", re.DOTALL)
_MAGIC = re.compile(r"[*?[]")
AHEAD_BYTES = 2**20
"""What is read at once where a reader goes on: a request costs as much as the transfer of so many bytes."""
_NEAR_BYTES = 2**16
"""A reader that skips no more than this goes on: from one picture of a tar file to the next."""


@dataclass(frozen=True)
class ObjectPath:
    """An object by its URL, such as ``s3://bucket/train/000.tar``, with the members of ``pathlib.Path``."""

    root: str
    """Bucket or host, with the protocol."""
    key: str

    @classmethod
    def of(cls, url: str) -> ObjectPath:
        """Of a whole URL."""
        found = _URL.fullmatch(url)
        return cls(url, "") if found is None else cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"

    def __truediv__(self, other: str) -> ObjectPath:
        return ObjectPath(self.root, f"{self.key.rstrip('/')}/{other}".lstrip("/"))

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> ObjectPath:
        """What stands before the last slash."""
        return ObjectPath(self.root, self.key.rpartition("/")[0])

    def size(self) -> int | None:
        """Bytes; None where there is no such object."""
        return sizes([self])[0]

    def exists(self) -> bool:
        """Whether there is such an object: folders are none."""
        return self.size() is not None

    is_file = exists

    def check_bucket(self) -> None:
        """Raise :class:`StorageError` where there is no such bucket, which no missing size says."""
        first_keys(_store(str(self.parent).rstrip("/")), 1)

    def is_dir(self) -> bool:
        """Object stores have no folders."""
        return False

    def read_bytes(self) -> bytes:
        """The whole object; :class:`FileNotFoundError` where there is none."""
        found = existing_objects([self])
        if self not in found:
            raise FileNotFoundError(2, "there is no such object", str(self))
        return found[self]

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        """A file that reads ranges as it goes; text unless ``mode`` is ``rb``."""
        buffered = io.BufferedReader(ObjectFile(self), AHEAD_BYTES)
        return buffered if mode == "rb" else io.TextIOWrapper(buffered, encoding=encoding, newline=newline)


Location = Path | ObjectPath
"""Where a file of a data set lies."""


def location_of(text: str) -> Location:
    """A URL or a local path."""
    return ObjectPath.of(text) if is_remote(text) else Path(text).expanduser()


def joined(folder: Location, name: str) -> Location:
    """A file that a table names: below the table's folder, unless it is a URL or an absolute path.

    Raises :class:`DataError` for a path that leaves the bucket of a table that lies in one.
    """
    if is_remote(name):
        return ObjectPath.of(name)
    if isinstance(folder, Path):
        return folder / name
    key = posixpath.normpath(posixpath.join(folder.key, name))
    if key.startswith(("/", "..")) or key == ".":
        raise DataError(f"{name!r} is no file of {folder.root}: expected a path below {folder}, or a URL")
    return ObjectPath(folder.root, key)


def sizes(paths: Iterable[ObjectPath]) -> list[int | None]:
    """Bytes of each object, None where there is none; asked for concurrently."""
    found: dict[ObjectPath, int | None] = {}
    for root, of_root in _by_root(paths).items():
        found |= zip(of_root, object_sizes(_store(root), [one.key for one in of_root]), strict=True)
    return [found[path] for path in paths]


def existing_objects(paths: Iterable[ObjectPath]) -> dict[ObjectPath, bytes]:
    """Those of some whole objects that are there, read concurrently."""
    found: dict[ObjectPath, bytes] = {}
    for root, of_root in _by_root(paths).items():
        contents = read_many(_store(root), [one.key for one in of_root])
        found |= {path: data for path, data in zip(of_root, contents, strict=True) if data is not None}
    return found


def matching(pattern: str) -> list[ObjectPath]:
    """The objects that a URL with ``*``, ``?``, ``[...]`` or ``**`` names, sorted; the folder is listed."""
    path = ObjectPath.of(pattern)
    magic = _MAGIC.search(path.key)
    assert magic is not None
    folder = path.key[: magic.start()].rpartition("/")[0]
    rest = path.key[len(folder) :].lstrip("/")
    names = re.compile("/".join(_segment(part) for part in rest.split("/")).replace("(?:.*)/", "(?:.*/)?"))
    keys = list_keys(_store(str(ObjectPath(path.root, folder)).rstrip("/")), "")
    return [ObjectPath(path.root, folder) / key for key in keys if names.fullmatch(key)]


def has_magic(url: str) -> bool:
    """Whether a URL is a pattern."""
    return _MAGIC.search(ObjectPath.of(url).key) is not None


def _segment(part: str) -> str:
    if part == "**":
        return "(?:.*)"
    # fnmatch's own `.*` would reach into folders.
    return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").replace(".*", "[^/]*")


def _by_root(paths: Iterable[ObjectPath]) -> dict[str, list[ObjectPath]]:
    found: dict[str, list[ObjectPath]] = {}
    for path in dict.fromkeys(paths):
        found.setdefault(path.root, []).append(path)
    return found


def _store(root: str) -> Store:
    """Clients are kept where they are opened, as long as what they read of the environment stays."""
    return open_store(root, read_only=True)


class ObjectFile(io.RawIOBase):
    """An object as a file. Ranges are read as they are asked for, and ahead where the reader goes on."""

    def __init__(self, path: ObjectPath, ahead: int = AHEAD_BYTES) -> None:
        """Raises :class:`FileNotFoundError` where there is no such object."""
        size = path.size()
        if size is None:
            raise FileNotFoundError(2, "there is no such object", str(path))
        self._path, self._size, self._ahead = path, size, ahead
        self._place = 0
        self._start, self._held = 0, b""
        self._last = 0

    def at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer at the end."""
        size = max(0, min(size, self._size - offset))
        first = offset - self._start
        if not (first >= 0 and first + size <= len(self._held)):
            goes_on = 0 <= offset - self._last <= _NEAR_BYTES
            stop = min(self._size, offset + max(size, self._ahead if goes_on else 0))
            self._start, self._held, first = offset, self._range(offset, stop), 0
        self._last = offset + size
        return self._held[first : first + size]

    def _range(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        data = read_range(_store(self._path.root), self._path.key, range(start, stop))
        if data is None:
            raise FileNotFoundError(2, "the object is gone", str(self._path))
        return data

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file does."""
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        """As a file does."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """As a file does."""
        data = self.at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
