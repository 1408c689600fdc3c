"""Sample ids that somebody wrote down: one a line, or as a JSON list where an id holds a line break."""

from __future__ import annotations

import json
from pathlib import Path

from cache_builder.console.file_kinds import kind_of
from cache_builder.console.text_lines import lines_of
from cache_builder.format.errors import DataError

_EXPECTED = "expected one id a line in UTF-8, or a .json file with a list of strings"


def read_ids(flag: str, path: Path, rows: int) -> list[str]:
    """The id of each row, exactly as it is written: blanks, tabs and quotes belong to it.

    ``flag``: how the file was named, for errors. Bytes that are not UTF-8 stay, as in file names. Raises
    :class:`DataError` for a file that cannot be read, names an id twice or has not one for each row.
    """
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        found = f"is {kind_of(path.expanduser())}" if path.expanduser().is_dir() else "cannot be read"
        raise DataError(f"{flag} {found}: {error.strerror or error}; {_EXPECTED}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{flag} is UTF-16: save it as UTF-8; {_EXPECTED}")
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    ids = _of_json(flag, text) if path.suffix.lower() == ".json" else lines_of(text)
    _check(flag, ids, rows)
    return ids


def _of_json(flag: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{flag} cannot be read: {error}; {_EXPECTED}") from error
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise DataError(f"{flag} is no list of strings; {_EXPECTED}")
    return found


def _check(flag: str, ids: list[str], rows: int) -> None:
    if len(ids) != rows:
        raise DataError(
            f"{flag} has {len(ids):,} lines, the dump {rows:,} rows: every row needs its id, in their order"
        )
    first: dict[str, int] = {}
    for number, sample_id in enumerate(ids, start=1):
        if not sample_id:
            raise DataError(f"{flag}, line {number}: an empty id")
        if first.setdefault(sample_id, number) != number:
            raise DataError(
                f"{flag}: {sample_id[:200]!r} is there twice, on lines {first[sample_id]} and {number}, "
                "counted from 1"
            )
