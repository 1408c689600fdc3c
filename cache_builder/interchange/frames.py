"""Blocks of a cache as Arrow record batches, in a Parquet or an Arrow IPC file. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError
from cache_builder.format.reader import Cache
from cache_builder.interchange.blocks import Block

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ConfigError("data frames need pyarrow: pip install 'kdcache[parquet]'") from error

if TYPE_CHECKING:
    from cache_builder.interchange.settings import ExportSettings


def write_frames(partial: Path, cache: Cache, found: Iterator[Block], settings: ExportSettings) -> None:
    """One row group, or record batch, for each block."""
    from cache_builder.interchange.export import in_precision, top_of

    schema = _schema(cache, settings)
    with _writer(settings)(partial, schema) as writer:
        for block in found:
            index, values = top_of(block, settings)
            logits = in_precision(block.logits, settings) if settings.dense else None
            writer.write_batch(_batch(block, schema, index, values, logits))


def _writer(settings: ExportSettings) -> Callable[[Path, pa.Schema], AbstractContextManager[Any]]:
    if settings.form == "arrow":
        return lambda path, schema: pa.ipc.new_file(str(path), schema)
    # Class ids and views repeat; logits do not, and a dictionary of them only costs time.
    repeated = ["view", "label", "top_ids.list.element"]
    return lambda path, schema: pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=repeated, write_page_checksum=True
    )


def _schema(cache: Cache, settings: ExportSettings) -> pa.Schema:
    manifest = cache.manifest
    number = pa.float16() if settings.half else pa.float32()
    fields = [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("view", pa.int32(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("top_ids", pa.list_(pa.int32())),
        pa.field("top_logits", pa.list_(pa.float32())),
        pa.field("lse", pa.float32()),
    ]
    if settings.dense:
        fields.append(pa.field("logits", pa.list_(number, manifest.classes)))
    origin = {
        "kdcache.cache_id": manifest.completed_id,
        "kdcache.name": manifest.name,
        "kdcache.teacher": manifest.teacher.spec,
        "kdcache.weights_digest": manifest.teacher.weights_digest,
    }
    return pa.schema(fields, metadata=origin)


def _batch(
    block: Block,
    schema: pa.Schema,
    index: NDArray[np.int32],
    values: NDArray[np.float32],
    logits: NDArray[np.floating] | None,
) -> pa.RecordBatch:
    """Null where there is no label, and in rows that could not be read."""
    missing = ~block.valid
    columns = [
        pa.array(list(block.cache.ids[block.rows.start : block.rows.stop]), pa.string()),
        pa.array(np.full(len(block.rows), block.view, np.int32)),
        pa.array(block.labels, pa.int32(), mask=block.labels < 0),
        _lists(index, missing),
        _lists(values, missing),
        pa.array(block.stored.lse, pa.float32(), mask=missing),
    ]
    if logits is not None:
        flat = pa.array(np.ascontiguousarray(logits).reshape(-1))
        mask = pa.array(missing)
        columns.append(pa.FixedSizeListArray.from_arrays(flat, logits.shape[1], mask=mask))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _lists(values: NDArray[np.generic], missing: NDArray[np.bool_]) -> pa.ListArray:
    """Rows of an array [n, K] as lists."""
    count = values.shape[1]
    offsets = np.arange(len(values) + 1, dtype=np.int32) * count
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(missing))
