"""Downloads that go on where they broke off, and are believed when their checksum is right."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path

import httpx2
from pydantic import BaseModel, ValidationError

from cache_builder.client.connection import DAMAGED, Connection, Passing
from cache_builder.format.content_digest import ContentDigest
from cache_builder.format.durable import fsync_file, take_name
from cache_builder.format.errors import ConfigError, ServerError
from cache_builder.format.wire import DIGEST_HEADER

_PIECE_BYTES = 2**20


class _Whole(BaseModel):
    """What the whole file will be, as the first answer said; kept beside the part that has come."""

    etag: str
    total: int
    digest: str
    """Content-Digest of the whole."""


class _Part:
    """The bytes of a file that have come, and what they are a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self._about = path.with_name(path.name + ".part.json")

    def whole(self) -> _Whole | None:
        """What they are a part of; None where nothing has come, or nobody knows of what it is."""
        try:
            return _Whole.model_validate_json(self._about.read_bytes()) if self.path.exists() else None
        except (FileNotFoundError, ValidationError):
            return None

    def begin(self, whole: _Whole) -> None:
        """Forget what has come, and note what will."""
        self.discard()
        self._about.write_text(whole.model_dump_json())
        self.path.touch()

    def discard(self) -> None:
        """Forget what has come."""
        # The bytes first: without the note beside them nobody would know what they are.
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def size(self) -> int:
        """How many bytes have come."""
        return self.path.stat().st_size if self.path.exists() else 0

    def is_right(self, whole: _Whole) -> bool:
        """Whether they are the whole, by its checksum."""
        digest = ContentDigest()
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
        return self.size() == whole.total and whole.digest == digest.value()

    def finish(self, path: Path) -> None:
        """Put the whole in its place, in one step."""
        fsync_file(self.path)
        take_name(self.path, path)
        self._about.unlink(missing_ok=True)


def download(connection: Connection, url_path: str, path: Path) -> Path:
    """The body of an immutable answer as a file; gives its path. What stood at ``path`` is replaced.

    Patience begins anew when more has come than ever before. Raises what :meth:`Connection.request` raises,
    and :class:`ConfigError` where somebody else downloads to the same path.
    """
    with _alone(path):
        return _download(connection, url_path, path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a download within the block: of two writers to one file neither would be right."""
    lock = path.with_name(path.name + ".part.lock")
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Not a record lock, which other threads of this process would not meet.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ConfigError(f"{path} is being downloaded already: wait, or choose another path") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        os.close(descriptor)  # its last holder has just removed it
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _download(connection: Connection, url_path: str, path: Path) -> Path:
    part = _Part(path)
    waiting, most = connection.waiting(), part.size()
    while True:
        with connection.problems(waiting):
            whole = _go_on(connection, url_path, part)
            if not part.is_right(whole):
                part.discard()
                raise Passing(DAMAGED)
            waiting.over()
            part.finish(path)
            return path
        if part.size() > most:
            waiting, most = connection.waiting(), part.size()


def _go_on(connection: Connection, url_path: str, part: _Part) -> _Whole:
    """Fetch what is missing; gives what the whole is."""
    whole = part.whole()
    have = part.size() if whole else 0
    if whole and have >= whole.total:
        return whole
    headers = {"Range": f"bytes={have}-", "If-Range": whole.etag} if whole and have else {}
    with connection.stream(url_path, headers) as response:
        connection.check(response)
        if response.status_code == HTTPStatus.OK:
            whole = _described(response)
            part.begin(whole)
        elif whole is None or not _goes_on(response, whole, have):
            part.discard()
            raise Passing("the answer is another part, or of another file, than was asked for")
        left = whole.total - part.size()
        with part.path.open("ab") as file:
            for piece in response.iter_raw():
                file.write(piece[:left])
                left -= len(piece)
                if left < 0:  # whatever follows: a server that lies fills no disk
                    break
    return whole


def _goes_on(response: httpx2.Response, whole: _Whole, have: int) -> bool:
    """Whether a part is the next one of the file that was begun: proxies may not know ``If-Range``."""
    given = response.headers.get("Content-Range", "")
    is_next = given.startswith(f"bytes {have}-") and given.endswith(f"/{whole.total}")
    return is_next and response.headers.get("ETag") == whole.etag


def _described(response: httpx2.Response) -> _Whole:
    tag, length = response.headers.get("ETag"), response.headers.get("Content-Length", "")
    digest = response.headers.get(DIGEST_HEADER)
    if tag is None or digest is None or not length.isdigit():
        raise ServerError(
            f"{response.url} answered without ETag, {DIGEST_HEADER} or Content-Length: does a proxy "
            "change it?"
        )
    return _Whole(etag=tag, total=int(length), digest=digest)
