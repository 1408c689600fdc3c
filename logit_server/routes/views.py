"""Consecutive records of a view: whole pages, downloads that go on after a break, data frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cache_builder.format.codecs import Part
from cache_builder.format.content_digest import ContentDigest
from cache_builder.format.wire import ARROW, CACHES_PATH, COUNTED, DIGEST_HEADER, NDJSON, RECORDS
from logit_server.byte_ranges import Selected, select
from logit_server.errors import RequestError
from logit_server.formats import STREAMED, streamed
from logit_server.pages import Pages
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.routes.documents import BINARY, responses
from logit_server.routes.records import prefix_of
from logit_server.served_caches import ServedCache
from logit_server.state import cache_of, is_head, pages_of, state_of
from logit_server.wire import QueryKeys, accepted, entity_tag

router = APIRouter(tags=["records"])

_CHUNK_BYTES = 2**20


class RangeQuery(QueryKeys):
    """Which rows."""

    start: int = Field(0, description="First row")
    stop: int | None = Field(None, description="Row after the last; default: all rows")
    part: Part = Field(Part.WHOLE, description="Which fields, where views share some of them")


@router.get(
    CACHES_PATH + "/{name}/views/{view}/records",
    response_class=Response,
    responses=responses(
        404, 406, 410, 416, 422, 500, 503,
        content=dict.fromkeys((RECORDS, COUNTED, NDJSON, ARROW), BINARY),
    ),
)  # fmt: skip
async def read_range(
    request: Request,
    name: str,
    view: int,
    asked: Annotated[RangeQuery, Query()],
) -> Response:
    """The records of rows [start, stop) of a view, streamed; without a range the whole view.

    The bytes are those that a POST of the same rows gives. ``Range`` gives some of them, so that a download
    that broke off goes on. Decoded (``Accept``) as NDJSON or as an Arrow IPC stream, which has no ranges.
    """
    served = cache_of(request)
    served.check_view(view)
    part, raw = served.check_part(asked.part), served.records_type
    answer = accepted(request, (raw, *STREAMED) if part is Part.WHOLE else (raw,))
    rows = _rows(served, asked)
    details = [str(part)] if part is not Part.WHOLE else [answer] if answer != raw else []
    tag = entity_tag(served.cache_id, view, rows.start, rows.stop, *details)
    headers = caching_headers(request, served, tag)
    if fresh := not_modified(request, headers):
        return fresh
    run = _Run(pages_of(request), served, view, rows, part)
    if answer in STREAMED:
        state_of(request).count_records(request.scope, served.cache.positions.total(rows))
        body = await streamed(answer, served, view, rows, run.pieces(rows))
        return StreamingResponse(() if is_head(request) else body, 200, headers, answer)
    selected = select(request, run.total, tag)
    headers |= selected.headers | {DIGEST_HEADER: await run.digest(selected)}
    if not is_head(request):
        count = len(selected.bytes) // served.part_bytes(part)
        state_of(request).count_records(request.scope, count)
    chunks = () if is_head(request) else run.chunks(selected)
    return StreamingResponse(chunks, selected.status, headers, raw)


def _rows(served: ServedCache, asked: RangeQuery) -> range:
    start, end = asked.start, served.samples if asked.stop is None else asked.stop
    if not 0 <= start <= end <= served.samples:
        raise RequestError(
            f"start={start}, stop={end} is no range of rows: they must be 0 <= start <= stop <= "
            f"{served.samples}, the rows of cache {served.name!r}"
        )
    return range(start, end)


class _Run:
    """The bytes of consecutive rows of a view: what stands before the records, then these."""

    def __init__(self, pages: Pages, served: ServedCache, view: int, rows: range, part: Part) -> None:
        self._pages, self._served, self._view, self._rows, self._part = pages, served, view, rows, part
        positions = served.cache.positions
        self._prefix = prefix_of(positions.counts(rows)) if served.records_type == COUNTED else b""
        self._record_bytes = served.part_bytes(part)
        self.total = len(self._prefix) + positions.total(rows) * self._record_bytes

    def pieces(self, rows: range) -> AsyncIterator[NDArray[np.uint8]]:
        """The records of some of the rows, block by block."""
        return self._pages.stream(self._served, self._view, rows, self._part)

    async def digest(self, selected: Selected) -> str:
        """The checksum that comes before the bytes: what does not fit into memory is read once for each."""
        digest = ContentDigest()
        async for chunk in self.chunks(selected):
            await run_in_threadpool(digest.update, chunk)
        return digest.value()

    async def chunks(self, selected: Selected) -> AsyncIterator[memoryview]:
        """The selected bytes, some at a time."""
        at, rows = self._first_row(selected.bytes)
        if not at and self._prefix:
            for chunk in _cut(memoryview(self._prefix), at, selected.bytes):
                yield chunk
            at = len(self._prefix)
        async for records in self.pieces(rows):
            data = memoryview(records.reshape(-1))  # type: ignore[arg-type]
            for chunk in _cut(data, at, selected.bytes):
                yield chunk
            at += len(data)
            if at >= selected.bytes.stop:
                break

    def _first_row(self, chosen: range) -> tuple[int, range]:
        """Where the bytes of the first row that is read begin, and the rows from there on."""
        if self._prefix or not self._served.has_one_position:
            return 0, self._rows
        skipped = min(chosen.start // self._record_bytes, len(self._rows))
        last = -(-chosen.stop // self._record_bytes)
        return skipped * self._record_bytes, self._rows[skipped:last]


def _cut(data: memoryview, at: int, chosen: range) -> list[memoryview]:
    """Those bytes of ``data``, which begins at byte ``at`` of a body, that are chosen, in chunks."""
    inside = data[max(0, chosen.start - at) : max(0, chosen.stop - at)]
    return [inside[start : start + _CHUNK_BYTES] for start in range(0, len(inside), _CHUNK_BYTES)]
