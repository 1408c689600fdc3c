"""Records by row or id: the path that training takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from cache_builder.format.codecs import Part
from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import (
    ARROW,
    CACHES_PATH,
    COUNT_TYPE,
    COUNTED,
    DIGEST_HEADER,
    JSON,
    NDJSON,
    RECORDS,
    ROW_TYPES,
    ROWS,
    WIDE_ROWS,
)
from logit_server.decoded import CountedRecords, DecodedRecords
from logit_server.formats import DECODED, Found, encoded
from logit_server.pages import Pages
from logit_server.record_request import SCHEMA, is_large, parse_record_request
from logit_server.routes.documents import BINARY, responses
from logit_server.routes.plain import PlainRoute
from logit_server.served_caches import ServedCache
from logit_server.state import ROUTE_KEY, State, cache_of, state_of
from logit_server.wire import (
    Selection,
    answer_type,
    body_type,
    check_count,
    parse_rows,
    parse_selection,
    read_body,
)

router = APIRouter(tags=["records"])
plain_router = APIRouter(tags=["records"], route_class=PlainRoute)

_PATH = f"{CACHES_PATH}/{{name}}/records"
_CHUNK_BYTES = 2**20
_DIGEST = DIGEST_HEADER.lower().encode()


@plain_router.post(
    _PATH,
    operation_id="post_records",
    response_model=None,
    responses=responses(
        404, 406, 410, 413, 415, 422, 500, 503,
        content=dict.fromkeys((RECORDS, COUNTED, NDJSON, ARROW), BINARY),
        model=DecodedRecords | CountedRecords,
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
                JSON: {"schema": SCHEMA},
                ROWS: BINARY | {"example": "rows as little-endian uint32"},
                WIDE_ROWS: BINARY | {"example": "rows as little-endian uint64"},
            },
        },
    },
)  # fmt: skip
async def post_records(request: Request) -> ASGIApp:
    """Records of one view, in the order of the request: n times record_bytes packed bytes, or decoded.

    Decoded (``Accept``) as JSON, as NDJSON, or as an Arrow IPC stream, which data frames are read from.
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
        scope[ROUTE_KEY] = _PATH
        header = dict(scope["headers"]).get
        (view, part), body_is, answer = self._terms(
            scope["query_string"],
            header(b"content-type", b""),
            header(b"content-encoding", b""),
            header(b"accept", b""),
        )
        settings, pages = self._state.settings, self._state.running_pages
        with self._state.admission.waiting_for_client():
            body = await read_body(receive, self._body_limit(body_is))
        rows: NDArray[np.integer[Any]]
        if body_is == JSON:
            limiter = self._state.large_bodies if is_large(body) else None
            rows = await to_thread.run_sync(
                _rows_of_json, self._served, body, settings.max_ids, limiter=limiter
            )
        else:
            rows = parse_rows(body, settings.max_ids, body_is)
        counts = None
        if self._served.has_one_position:
            records = await gather(pages, self._served, view, rows, part)
        else:
            positions, counts = self._served.positions_of(rows, settings.max_ids)
            records = await pages.gather(self._served, view, positions, part)
        self._state.count_records(scope, len(records))
        if answer in DECODED:
            check_count(len(records), settings.max_ids if answer == ARROW else settings.max_json_records)
            found = Found(self._served, view, rows if counts is None else np.repeat(rows, counts), records)
            content: bytes | memoryview = await run_in_threadpool(encoded, answer, found, counts)
        else:
            content = records.reshape(-1).data
            if answer == COUNTED and counts is not None:
                content = b"".join((prefix_of(counts), content))
        await _send(send, answer, content)

    def _body_limit(self, body_is: str) -> int:
        """Bytes that a body may have: of raw rows, no more than there may be rows."""
        settings = self._state.settings
        if body_is == JSON:
            return settings.max_body_bytes
        return min(settings.max_body_bytes, settings.max_ids * ROW_TYPES[body_is].itemsize)

    def _read_terms(
        self, query: bytes, content_type: bytes, encoding: bytes, accept: bytes
    ) -> tuple[Selection, str, str]:
        """(view and part, media type of the body, media type of the answer) of a request, checked."""
        body_is = body_type(content_type, encoding, (*ROW_TYPES, JSON))
        selection = parse_selection(query)
        self._served.check_view(selection.view)
        self._served.check_part(selection.part)
        raw = self._served.records_type
        answer = answer_type(accept, (raw, *DECODED) if selection.part is Part.WHOLE else (raw,))
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


def prefix_of(counts: NDArray[np.int64]) -> bytes:
    """What stands before records of type ``COUNTED``."""
    return counts.astype(COUNT_TYPE).tobytes()
