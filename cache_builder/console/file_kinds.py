"""What a file is, by its first bytes: for messages about one that is not what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Protocol, Self

NO_TEXT = "a file of bytes that are no text"
_HEAD_BYTES = 4096
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"PAR1", "a Parquet table"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (also what torch.save writes)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xff\xfe", "a text in UTF-16"),
    (b"\xfe\xff", "a text in UTF-16"),
)


class Readable(Protocol):
    """What of a path is looked at: of a local one, or of a URL."""

    def is_dir(self) -> bool:
        """As ``pathlib.Path`` does, and so are the others."""

    def exists(self) -> bool:
        """Whether anything is there."""

    def is_file(self) -> bool:
        """Whether it can be read."""

    def open(self, mode: str) -> IO[Any]:
        """A file of bytes for ``rb``."""

    def __truediv__(self, name: str) -> Self: ...


def kind_of(path: Path | Readable) -> str:
    """``a folder``, ``a PNG picture``, ``a text``, …: what lies at a path, with its article.

    Never raises: what cannot be looked at is ``a file that cannot be read``, what is not there ``nothing``.
    """
    try:
        if path.is_dir():
            return "a folder that holds a cache" if (path / "zarr.json").exists() else "a folder"
        if not path.exists():
            return "nothing"
        if not path.is_file():
            return "no plain file"
        with path.open("rb") as file:
            return _kind_of_bytes(file.read(_HEAD_BYTES))
    except (OSError, ValueError):
        return "a file that cannot be read"


def is_text(path: Path | Readable) -> bool:
    """Whether a file begins as text does."""
    return kind_of(path) in ("a text", "an HTML page", "a JSON text")


def _kind_of_bytes(head: bytes) -> str:
    if not head:
        return "an empty file"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[257:262] == b"ustar":
        return "a tar file"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _kind_of_text(head)


def _kind_of_text(head: bytes) -> str:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3:
            return NO_TEXT
        text = head[: error.start].decode("utf-8-sig")
    if any(ord(character) < 32 and character not in "\t\n\r\f" for character in text):
        return NO_TEXT
    start = text.lstrip()
    if start[:15].lower().startswith(("<!doctype html", "<html")):
        return "an HTML page"
    return "a JSON text" if start.startswith(("{", "[")) else "a text"
