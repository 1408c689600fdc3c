"""Blocks of a cache as Arrow record batches, in a Parquet or an Arrow IPC file. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache_builder.format.codecs import Stored
from cache_builder.format.frames import record_batch, record_schema
from cache_builder.format.reader import Cache
from cache_builder.interchange.blocks import Block

if TYPE_CHECKING:
    from cache_builder.interchange.settings import ExportSettings


def write_frames(partial: Path, cache: Cache, found: Iterator[Block], settings: ExportSettings) -> None:
    """One row group, or record batch, for each block."""

    kind = np.dtype(np.float16 if settings.half else np.float32)
    schema = record_schema(cache.manifest, kind if settings.dense else None)
    with _writer(settings)(partial, schema) as writer:
        for block in found:
            index, values = block.top(settings.top)
            logits = block.dense(half=settings.half) if settings.dense else None
            stored = Stored(index.astype(np.int64), values, block.stored.lse)
            ids = cache.ids[block.rows.start : block.rows.stop]
            writer.write_batch(record_batch(schema, ids, block.view, block.labels, stored, logits))


def _writer(settings: ExportSettings) -> Callable[[Path, Any], AbstractContextManager[Any]]:
    # Here: the module that makes the batches says what to install where this is missing.
    import pyarrow as pa
    import pyarrow.parquet as pq

    if settings.form == "arrow":
        return lambda path, schema: pa.ipc.new_file(str(path), schema)
    # Class ids and views repeat; logits do not, and a dictionary of them only costs time.
    repeated = ["view", "label", "top_ids.list.element"]
    return lambda path, schema: pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=repeated, write_page_checksum=True
    )
