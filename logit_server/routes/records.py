"""Records by row or id, and by range: the paths that training takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cache_builder.format.codecs import Part
from cache_builder.format.content_digest import ContentDigest, content_digest
from cache_builder.format.wire import (
    CACHES_PATH,
    COUNT_TYPE,
    COUNTED,
    DIGEST_HEADER,
    JSON,
    RECORDS,
    ROW_TYPES,
    ROWS,
    WIDE_ROWS,
)
from logit_server.decoded import CountedRecords, DecodedRecords, decode_records
from logit_server.errors import RequestError
from logit_server.pages import Pages
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.routes.documents import BINARY, responses
from logit_server.routes.plain import PlainRoute
from logit_server.served_caches import ServedCache
from logit_server.state import State, cache_of, is_head, pages_of, state_of
from logit_server.wire import (
    QueryKeys,
    RecordRequest,
    Selection,
    answer_type,
    body_type,
    check_accepted,
    check_count,
    entity_tag,
    parse_record_request,
    parse_rows,
    parse_selection,
    read_body,
)

router = APIRouter(tags=["records"])
plain_router = APIRouter(tags=["records"], route_class=PlainRoute)

_CHUNK_BYTES = 2**20
_DIGEST = DIGEST_HEADER.lower().encode()


@plain_router.post(
    CACHES_PATH + "/{name}/records",
    operation_id="post_records",
    response_model=None,
    responses=responses(
        404, 406, 410, 413, 415, 422, 500, 503,
        content={RECORDS: BINARY, COUNTED: BINARY}, model=DecodedRecords | CountedRecords,
    ),
    openapi_extra={
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
            {"name": "view", "in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0}},
            {"name": "part", "in": "query", "schema": {"enum": list(Part), "default": Part.WHOLE}},
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": RecordRequest.model_json_schema()},
                ROWS: BINARY | {"example": "rows as little-endian uint32"},
                WIDE_ROWS: BINARY | {"example": "rows as little-endian uint64"},
            },
        },
    },
)  # fmt: skip
async def post_records(request: Request) -> ASGIApp:
    """Records of one view, in the order of the request: n times record_bytes packed bytes, or decoded JSON.

    Rows as little-endian uint32 (``application/vnd.kdcache.rows``) are the fast way. Where samples have
    several positions, the records of each row stand one after the other; where their numbers differ, the
    answer is of type ``application/vnd.kdcache.counted-records``: n numbers of records as little-endian
    uint64, then the records.

    Records of codec ``joint-sketch`` begin with what the views of their tile have in common. Who has it
    already asks for ``part=own``, and for ``part=shared`` who wants it alone; both have binary answers only.
    """
    return RecordsOf(state_of(request), cache_of(request))


class RecordsOf:
    """Answers requests for records of one cache: an ASGI application, with as little in the way as can be."""

    def __init__(self, state: State, served: ServedCache) -> None:
        self._state = state
        self._served = served
        # Requests of one client differ in their bodies alone.
        self._terms = lru_cache(maxsize=256)(self._read_terms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what the error table knows."""
        header = dict(scope["headers"]).get
        (view, part), body_is, answer = self._terms(
            scope["query_string"],
            header(b"content-type", b""),
            header(b"content-encoding", b""),
            header(b"accept", b""),
        )
        settings, pages = self._state.settings, self._state.running_pages
        body = await read_body(receive, settings.max_body_bytes)
        rows: NDArray[np.integer[Any]]
        if body_is == JSON:
            rows = await run_in_threadpool(_rows_of_json, self._served, body, settings.max_ids)
        else:
            rows = parse_rows(body, settings.max_ids, body_is)
        counts = None
        if self._served.has_one_position:
            records = await gather(pages, self._served, view, rows, part)
        else:
            positions, counts = self._served.positions_of(rows, settings.max_ids)
            records = await pages.gather(self._served, view, positions, part)
        self._state.records_served += len(records)
        if answer == JSON:
            check_count(len(records), settings.max_json_records)
            content: bytes | memoryview = await run_in_threadpool(
                _decoded, self._served, view, rows, records, counts
            )
        else:
            content = records.reshape(-1).data
            if answer == COUNTED and counts is not None:
                content = b"".join((_prefix(counts), content))
        await _send(send, answer, content)

    def _read_terms(
        self, query: bytes, content_type: bytes, encoding: bytes, accept: bytes
    ) -> tuple[Selection, str, str]:
        """(view and part, media type of the body, media type of the answer) of a request, checked."""
        body_is = body_type(content_type, encoding, (*ROW_TYPES, JSON))
        selection = parse_selection(query)
        self._served.check_view(selection.view)
        self._served.check_part(selection.part)
        raw = self._served.records_type
        answer = answer_type(accept, (raw, JSON) if selection.part is Part.WHOLE else (raw,))
        return selection, body_is, answer


async def _send(send: Send, media_type: str, body: bytes | memoryview) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (_DIGEST, content_digest(body).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def gather(
    pages: Pages,
    served: ServedCache,
    view: int,
    rows: NDArray[np.integer[Any]],
    part: Part = Part.WHOLE,
) -> NDArray[np.uint8]:
    """The records of ``rows`` that have one each, or that part of them, uint8 [n, bytes].

    Raises :class:`RequestError` naming rows out of range.
    """
    try:
        records = pages.resident(served, view, rows, part)
    except IndexError as error:
        raise served.rows_out_of_range(rows) from error
    if records is not None:
        return records
    served.check_rows(rows)
    return await pages.gather(served, view, rows, part)


def _rows_of_json(served: ServedCache, body: bytes, max_ids: int) -> NDArray[np.int64]:
    wanted = parse_record_request(body, max_ids)
    if wanted.ids is not None:
        return served.cache.rows_for(wanted.ids)
    return np.array(wanted.rows, np.int64)


def _decoded(
    served: ServedCache,
    view: int,
    rows: NDArray[np.integer[Any]],
    records: NDArray[np.uint8],
    counts: NDArray[np.int64] | None,
) -> bytes:
    """Records as JSON: one of each of ``rows``, or ``counts`` of them."""
    if counts is None:
        decoded = decode_records(served, view, rows, records)
        return DecodedRecords(cache_id=served.cache_id, records=decoded).model_dump_json().encode()
    decoded = decode_records(served, view, np.repeat(rows, counts), records)
    counted = CountedRecords(cache_id=served.cache_id, records=decoded, counts=counts.tolist())
    return counted.model_dump_json().encode()


def _prefix(counts: NDArray[np.int64]) -> bytes:
    return counts.astype(COUNT_TYPE).tobytes()


class RangeQuery(QueryKeys):
    """Which rows."""

    start: int = Field(0, description="First row")
    stop: int | None = Field(None, description="Row after the last; default: all rows")
    part: Part = Field(Part.WHOLE, description="Which fields, where views share some of them")


@router.get(
    CACHES_PATH + "/{name}/views/{view}/records",
    response_class=Response,
    responses=responses(404, 406, 410, 422, 500, 503, content={RECORDS: BINARY, COUNTED: BINARY}),
)
async def read_range(
    request: Request,
    name: str,
    view: int,
    asked: Annotated[RangeQuery, Query()],
) -> Response:
    """The records of rows [start, stop) of a view, streamed; without a range the whole view.

    The bytes are those that a POST of the same rows gives.
    """
    served = cache_of(request)
    check_accepted(request, served.records_type)
    served.check_view(view)
    part = served.check_part(asked.part)
    start, end = asked.start, served.samples if asked.stop is None else asked.stop
    if not 0 <= start <= end <= served.samples:
        raise RequestError(
            f"start={start}, stop={end} is no range of rows: they must be 0 <= start <= stop <= "
            f"{served.samples}, the rows of cache {served.name!r}"
        )
    headers = caching_headers(
        request, served, entity_tag(served.cache_id, view, start, end, *_unless_whole(part))
    )
    if fresh := not_modified(request, headers):
        return fresh
    pages, rows = pages_of(request), range(start, end)
    positions = served.cache.positions
    prefix = _prefix(positions.counts(rows)) if served.records_type == COUNTED else b""
    headers["content-length"] = str(len(prefix) + positions.total(rows) * served.part_bytes(part))
    # The digest comes before the bytes: what does not fit into memory is read once for each.
    digest = ContentDigest()
    digest.update(prefix)
    async for records in pages.stream(served, view, rows, part):
        await run_in_threadpool(digest.update, records.reshape(-1).data)
    headers[DIGEST_HEADER] = digest.value()
    state_of(request).records_served += 0 if is_head(request) else positions.total(rows)
    body = () if is_head(request) else _chunks(prefix, pages.stream(served, view, rows, part))
    return StreamingResponse(body, 200, headers, served.records_type)


async def _chunks(prefix: bytes, blocks: AsyncIterator[NDArray[np.uint8]]) -> AsyncIterator[bytes]:
    if prefix:
        yield prefix
    async for records in blocks:
        step = max(1, _CHUNK_BYTES // records.shape[1])
        for start in range(0, len(records), step):
            yield records[start : start + step].tobytes()


def _unless_whole(part: Part) -> tuple[Part, ...]:
    return () if part is Part.WHOLE else (part,)
