"""Records as columns of Apache Arrow: what exports and servers have in common. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs import Stored
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import Manifest

try:
    import pyarrow as pa
except ImportError as error:
    raise ConfigError("data frames need pyarrow: pip install 'kdcache[parquet]'") from error


def record_schema(manifest: Manifest, dense: np.dtype[Any] | None = None) -> pa.Schema:
    """The columns of records, with where they come from; ``dense``: the type of all logits, where wanted."""
    fields = [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("view", pa.int32(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("top_ids", pa.list_(pa.int32())),
        pa.field("top_logits", pa.list_(pa.float32())),
        pa.field("lse", pa.float32()),
    ]
    if dense is not None:
        fields.append(pa.field("logits", pa.list_(pa.from_numpy_dtype(dense), manifest.classes)))
    origin = {
        "kdcache.cache_id": manifest.completed_id,
        "kdcache.name": manifest.name,
        "kdcache.teacher": manifest.teacher.spec,
        "kdcache.weights_digest": manifest.teacher.weights_digest,
    }
    return pa.schema(fields, metadata=origin)


def record_batch(
    schema: pa.Schema,
    ids: Sequence[str],
    view: int,
    labels: NDArray[np.int32],
    stored: Stored,
    logits: NDArray[np.floating] | None = None,
) -> pa.RecordBatch:
    """Records of one view. Null where there is no label, and in rows that could not be read."""
    missing = ~np.isfinite(stored.lse)
    columns = [
        pa.array(list(ids), pa.string()),
        pa.array(np.full(len(ids), view, np.int32)),
        pa.array(labels, pa.int32(), mask=labels < 0),
        _lists(stored.classes.astype(np.int32), missing),
        _lists(stored.values, missing),
        pa.array(stored.lse, pa.float32(), mask=missing),
    ]
    if logits is not None:
        flat = pa.array(np.ascontiguousarray(logits).reshape(-1))
        mask = pa.array(missing)
        columns.append(pa.FixedSizeListArray.from_arrays(flat, logits.shape[1], mask=mask))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def new_stream(sink: BinaryIO, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
    """What writes batches to a file object in the stream format."""
    return pa.ipc.new_stream(sink, schema)


def _lists(values: NDArray[np.generic], missing: NDArray[np.bool_]) -> pa.ListArray:
    """Rows of an array [n, K] as lists."""
    count = values.shape[1]
    offsets = np.arange(len(values) + 1, dtype=np.int32) * count
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(missing))
