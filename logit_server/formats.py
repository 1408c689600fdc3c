"""Records in other forms than their bytes: JSON, a JSON object a line, a stream of Apache Arrow batches."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from cache_builder.format import ConfigError
from cache_builder.format.wire import ARROW, JSON, NDJSON
from logit_server.decoded import json_of
from logit_server.errors import NotAcceptableError
from logit_server.served_caches import ServedCache

STREAMED = (ARROW, NDJSON)
"""What a range of rows can be answered in, besides its bytes."""
DECODED = (JSON, *STREAMED)
"""What chosen rows can be answered in, besides their bytes."""
_AT_ONCE = 2048
"""Records that are decoded at once."""


@dataclass(frozen=True)
class Found:
    """Some records of one view."""

    served: ServedCache
    view: int
    rows: NDArray[np.integer[Any]]
    """The row of each record [n]."""
    records: NDArray[np.uint8]
    """uint8 [n, record_bytes]."""

    def part(self, start: int) -> Found:
        """Those that are decoded at once, from one of them on."""
        some = slice(start, start + _AT_ONCE)
        return Found(self.served, self.view, self.rows[some], self.records[some])


def encoded(media_type: str, found: Found, counts: NDArray[np.int64] | None = None) -> bytes:
    """Records in one of ``DECODED``; ``counts``: how many each row of the request has, where that differs.

    Raises :class:`NotAcceptableError` where a package for it is not installed.
    """
    if media_type == JSON:
        return json_of(found.served, found.view, found.rows, found.records, counts)
    writer = _WRITERS[media_type](found.served)
    parts = (writer.piece(found.part(start)) for start in range(0, len(found.rows), _AT_ONCE))
    return b"".join((*parts, writer.end()))


async def streamed(
    media_type: str, served: ServedCache, view: int, rows: range, pieces: AsyncIterator[NDArray[np.uint8]]
) -> AsyncIterator[bytes]:
    """Records of consecutive rows in one of ``STREAMED``, some at a time.

    Raises :class:`NotAcceptableError` before the first of them where a package for it is not installed.
    """
    writer = await run_in_threadpool(_WRITERS[media_type], served)
    return _written(writer, served, view, rows, pieces)


async def _written(
    writer: _Lines | _Batches,
    served: ServedCache,
    view: int,
    rows: range,
    pieces: AsyncIterator[NDArray[np.uint8]],
) -> AsyncIterator[bytes]:
    owners = np.repeat(np.arange(rows.start, rows.stop), served.cache.positions.counts(rows))
    done = 0
    async for records in pieces:
        found = Found(served, view, owners[done : done + len(records)], records)
        for start in range(0, len(records), _AT_ONCE):
            yield await run_in_threadpool(writer.piece, found.part(start))
        done += len(records)
    yield writer.end()


class _Lines:
    """A JSON object a line."""

    def __init__(self, served: ServedCache) -> None:
        pass

    def piece(self, found: Found) -> bytes:
        write = found.served.record_json.written
        return write(found.view, found.rows, found.records, between=b"\n") + b"\n" * bool(len(found.rows))

    def end(self) -> bytes:
        return b""


class _Batches:
    """The stream format of Arrow IPC, which pandas, polars and DuckDB read: columns as ``kdcache export``."""

    def __init__(self, served: ServedCache) -> None:
        try:
            from cache_builder.format import frames
        except ConfigError as error:
            raise NotAcceptableError(f"this server cannot answer with {ARROW}: {error}") from error
        self._schema, self._batch = frames.record_schema(served.manifest), frames.record_batch
        self._buffer = io.BytesIO()
        self._writer = frames.new_stream(self._buffer, self._schema)

    def piece(self, found: Found) -> bytes:
        cache = found.served.cache
        ids, labels = cache.ids.at(found.rows), cache.labels[found.rows]
        stored = cache.stored(found.records)
        self._writer.write_batch(self._batch(self._schema, ids, found.view, labels, stored))
        return self._written()

    def end(self) -> bytes:
        self._writer.close()
        return self._written()

    def _written(self) -> bytes:
        written = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return written


_WRITERS: dict[str, Callable[[ServedCache], _Lines | _Batches]] = {NDJSON: _Lines, ARROW: _Batches}
