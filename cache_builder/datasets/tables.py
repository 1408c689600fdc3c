"""Tables of image paths: CSV by the standard library, Parquet by pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache_builder.console.file_kinds import NO_TEXT, is_text, kind_of
from cache_builder.datasets.decoding import decoded_sample, read_image_file
from cache_builder.datasets.labels import LabelBuffer, Labelled
from cache_builder.datasets.left_out import LeftOut
from cache_builder.datasets.object_paths import Location, ObjectPath, existing_objects, joined, location_of
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.source import ImageSample
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import IdBuffer, SampleIds

_OPTIONS = ("path", "label", "id", "classes")


class _Columns(NamedTuple):
    """Which column holds what; None where there is none."""

    path: str
    label: str | None
    id: str | None


class _Content(NamedTuple):
    """What a table says, row by row."""

    paths: SampleIds
    ids: SampleIds | None
    labelled: Labelled
    left_out: str = ""


class TableSource:
    """One image file a row: columns ``path``, and where there are such ``label`` and ``id``.

    Paths are relative to the table's folder, or URLs; the table may have a URL itself. Sample id = ``id``,
    else the path as it is written. Labels are numbers, or names that get their numbers in sorted order; an
    empty one is none. Options: ``path=COLUMN``, ``label=COLUMN`` (``label=`` reads none), ``id=COLUMN``,
    ``classes=FILE`` (one name a line, in the order of the numbers) or ``classes=N``.
    """

    reads_files = True
    side: int | None = None
    mirrors = True
    decoding: Decoding = NEWEST

    def __init__(
        self, kind: str, argument: str, read: Callable[[Location, dict[str, str]], _Content]
    ) -> None:
        self.spec = f"{kind}:{argument}"
        name, options = split_options(kind, argument, _OPTIONS)
        if not name:
            raise ConfigError(f"{kind} needs a table: write {kind}:PATH")
        self._table = location_of(name)
        _check_kind(kind, self._table)
        content = read(self._table, options)
        if not len(content.paths):
            raise DataError(f"table {self._table} has no rows")
        self._paths = content.paths
        self._ahead: dict[int, bytes] = {}
        self.ids: Sequence[str] = content.paths if content.ids is None else content.ids
        self.left_out = content.left_out
        self.class_names: tuple[str, ...] | None
        self.labels: NDArray[np.int32] | None
        self.class_names, self.labels = content.labelled

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> ImageSample:
        """Read and decode one file; errors name its path and its row."""
        where = f" (row {index} of {self._table}, the first is 0)"
        picture = self._picture(index)
        if index in self._ahead:
            return decoded_sample(self._ahead[index], f"{picture}{where}", self.decoding)
        return read_image_file(picture, where, self.decoding)

    def read_ahead(self, rows: Sequence[int]) -> None:
        """Read the files of a batch from an object store at once, so that none waits for another's answer."""
        pictures = {row: self._picture(row) for row in rows}
        remote = {row: picture for row, picture in pictures.items() if isinstance(picture, ObjectPath)}
        contents = existing_objects(remote.values())
        self._ahead = {row: contents[picture] for row, picture in remote.items() if picture in contents}

    def _picture(self, index: int) -> Location:
        return joined(self._table.parent, self._paths[index])


_KINDS = {"csv": "a table in text with a header line such as path,label", "parquet": "a Parquet table"}


def _check_kind(kind: str, table: Location) -> None:
    """Raise :class:`DataError` where the file is certainly another thing than a table of this kind."""
    if not table.exists():
        raise DataError(f"table {str(table)!r} does not exist")
    is_wrong = not table.is_file() or (is_text(table) if kind == "parquet" else not is_text(table))
    found = kind_of(table)
    if is_wrong and found not in ("an empty file", "a text in UTF-16", NO_TEXT):
        meant = f"; for pictures in it write imagefolder:{table}" if table.is_dir() else ""
        raise DataError(f"table {str(table)!r} is {found}, expected {_KINDS[kind]}{meant}")


def open_csv(argument: str) -> TableSource:
    """``csv:PATH``: comma-separated UTF-8 with a header line (tabs in a file called ``.tsv``)."""
    return TableSource("csv", argument, _read_csv)


def open_parquet(argument: str) -> TableSource:
    """``parquet:PATH``: one Parquet file; needs pyarrow."""
    return TableSource("parquet", argument, _read_parquet)


def _read_csv(table: Location, options: dict[str, str]) -> _Content:
    with _told_by_line(table) as reader:
        header = next(reader, None)
        if header is None:
            raise DataError(f"table {table} is empty, expected a header line such as path,label")
        columns = _columns(table, header, options)
        places = [None if name is None else header.index(name) for name in columns]
        buffers, left_out = (IdBuffer(), LabelBuffer(), IdBuffer()), LeftOut()
        for fields in reader:
            if not fields:
                left_out.add("empty line", f"line {reader.line_num}")
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"table {table}, line {reader.line_num}: {len(fields)} fields, but "
                    f"{len(header)} in the header"
                )
            _append(table, reader.line_num, fields, places, buffers)
    paths, labels, ids = buffers
    return _Content(
        paths.finish(),
        None if columns.id is None else ids.finish(),
        labels.finish(f"table {table}", options.get("classes")),
        left_out.in_words(),
    )


def _append(
    table: Location,
    line: int,
    fields: list[str],
    places: list[int | None],
    buffers: tuple[IdBuffer, LabelBuffer, IdBuffer],
) -> None:
    # A label is a name for people; a path and an id are what they are, blanks and all.
    path, label, sample_id = (None if place is None else fields[place] for place in places)
    path = _without_separator(table, path or "")
    if not path or sample_id == "":
        raise DataError(f"table {table}, line {line}: an empty {'id' if path else 'path'}")
    paths, labels, ids = buffers
    paths.append(path.encode())
    labels.append(label.strip() if label else None)
    if sample_id is not None:
        ids.append(sample_id.encode())


def _without_separator(table: Location, path: str) -> str:
    """A path as it is, but for blanks around it that no file has: ``a.png , cat``."""
    bare = path.strip()
    if bare != path and isinstance(table, ObjectPath):
        return bare  # a request a row would take hours
    return bare if bare != path and not joined(table.parent, path).exists() else path


@contextmanager
def _told_by_line(table: Location) -> Iterator[Any]:
    """A reader whose errors name the table and the line."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter="\t" if table.suffix == ".tsv" else ",", strict=True)
        try:
            yield reader
        except UnicodeDecodeError as error:
            raise DataError(
                f"table {table}, after line {reader.line_num}: not UTF-8 ({error.reason})"
            ) from error
        except csv.Error as error:
            raise DataError(f"table {table}, line {reader.line_num}: {error}") from error


def _read_parquet(table: Location, options: dict[str, str]) -> _Content:
    from cache_builder.datasets import arrow

    columns = _columns(table, arrow.column_names(table), options)
    content = arrow.read_columns(table, [name for name in columns if name is not None])
    where = f"table {table}"
    return _Content(
        arrow.ids_of(content[columns.path], f"{where}, column {columns.path!r}"),
        None if columns.id is None else arrow.ids_of(content[columns.id], f"{where}, column {columns.id!r}"),
        (None, None)
        if columns.label is None
        else arrow.labels_of(content[columns.label], where, options.get("classes")),
    )


def _columns(table: Location, header: Sequence[str], options: dict[str, str]) -> _Columns:
    """The columns asked for, or those of the usual names."""
    asked = {name: options[name] for name in ("path", "label", "id") if options.get(name)}
    wanted = {"path": "path"} | {name: name for name in ("label", "id") if name in header}
    if options.get("label") == "":
        wanted.pop("label", None)
    wanted |= asked
    for name, column in wanted.items():
        if header.count(column) != 1:
            raise DataError(
                f"table {table} has {'several' if column in header else 'no'} columns {column!r} but "
                f"{', '.join(map(repr, header))}: say which holds the {name} with ?{name}=COLUMN"
            )
    return _Columns(wanted["path"], wanted.get("label"), wanted.get("id"))
