"""Arrow columns to ids and labels without a Python object for each row. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.labels import Labelled, resolve_labels
from cache_builder.datasets.object_paths import Location
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.ids import SampleIds

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ConfigError("this kind of data needs pyarrow: pip install 'kdcache[parquet]'") from error


def column_names(table: Location) -> list[str]:
    """Of a Parquet file, from its schema."""
    with _opened(table) as file:
        names: list[str] = file.schema_arrow.names
        return names


def read_columns(table: Location, names: list[str]) -> pa.Table:
    """Some columns of a Parquet file."""
    with _opened(table) as file:
        return file.read(columns=names)


@contextmanager
def _opened(table: Location) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(table if isinstance(table, Path) else table.open("rb"), memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"table {table} cannot be read: {error}") from error


def ids_of(column: pa.ChunkedArray, where: str) -> SampleIds:
    """Strings or numbers as ids, on the column's own memory where it is one of strings."""
    whole = _text(column, where)
    if whole.null_count:
        row = int(np.flatnonzero(whole.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{where}: nothing in row {row}, the first is 0")
    _, offsets, data = whole.buffers()
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return SampleIds(content[ends[0] : ends[-1]], ends - ends[0])


def labels_of(column: pa.ChunkedArray, where: str, classes: str | None) -> Labelled:
    """Numbers or names as ``resolve_labels`` has it; a null is none."""
    coded = _text(column, where).dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return resolve_labels(where, coded.dictionary.to_pylist(), codes, classes)


def numbers_of(column: pa.ChunkedArray, where: str, classes: int) -> NDArray[np.int32]:
    """Class ids below ``classes``; a null is none (-1)."""
    labels: NDArray[np.int64] = column.cast(pa.int64()).fill_null(-1).to_numpy()
    if labels.size and not -1 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{where}: labels from {labels.min()} to {labels.max()}, expected {classes} classes")
    return labels.astype(np.int32)


def _text(column: pa.ChunkedArray, where: str) -> Any:
    try:
        whole = column.cast(pa.large_string()).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{where}: {column.type} is neither text nor numbers") from error
    # Older releases give back a chunked array.
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) and whole.num_chunks else whole
