"""``/v1/caches/{name}/samples/{sample_id}``: one record, decoded, for people."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from cache_builder.format.content_digest import content_digest
from cache_builder.format.wire import CACHES_PATH, DIGEST_HEADER, JSON
from logit_server.decoded import CountedRecords, DecodedRecord, json_of
from logit_server.errors import RequestError
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.routes.documents import responses
from logit_server.state import cache_of, pages_of, state_of
from logit_server.wire import QueryKeys, check_accepted, entity_tag

router = APIRouter(tags=["records"])


class _Anything(Convertor[str]):
    """The rest of a path as it is: an id may hold newlines, before which ``path`` ends."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


class SampleQuery(QueryKeys):
    """What of a sample to show."""

    view: int = Field(0, description="Which recorded augmentation", json_schema_extra={"minimum": 0})
    top: int | None = Field(
        None,
        description="Classes to show; default: all that are stored",
        json_schema_extra={"minimum": 1},
    )


class IdQuery(SampleQuery):
    """Which sample, and what of it to show."""

    id: str = Field(description="The sample's id, exactly")


@router.get(
    CACHES_PATH + "/{name}/samples",
    response_model=DecodedRecord | CountedRecords,
    responses=responses(404, 406, 410, 413, 422, 500, 503),
)
async def read_sample_of_id(request: Request, name: str, asked: Annotated[IdQuery, Query()]) -> Response:
    """As with the id in the path: for ids such as ``..``, that clients and proxies would tidy away there."""
    return await _answer(request, asked.id, asked)


@router.get(
    CACHES_PATH + "/{name}/samples/{sample_id:anything}",
    response_model=DecodedRecord | CountedRecords,
    responses=responses(404, 406, 410, 413, 422, 500, 503),
)
async def read_sample(
    request: Request,
    name: str,
    sample_id: str,
    asked: Annotated[SampleQuery, Query()],
) -> Response:
    """What the teacher said about one sample in one view, with class names: at each position, if several."""
    return await _answer(request, sample_id, asked)


async def _answer(request: Request, sample_id: str, asked: SampleQuery) -> Response:
    served = cache_of(request)
    check_accepted(request, JSON)
    view, top = served.check_view(asked.view), asked.top
    stored = served.manifest.codec.kept(served.manifest.classes)
    if top is not None and not 1 <= top <= stored:
        raise RequestError(f"top is {top}: cache {served.name!r} stores 1 to {stored} classes per record")
    await state_of(request).indexes.ready(served)
    rows = await run_in_threadpool(served.cache.rows_for, [sample_id])
    headers = caching_headers(
        request, served, entity_tag(served.cache_id, "sample", rows[0], view, top or stored)
    )
    if fresh := not_modified(request, headers):
        return fresh
    limit = state_of(request).settings.max_json_records
    positions, counts = served.positions_of(rows, limit)
    records = await pages_of(request).gather(served, view, positions)
    owners = np.repeat(rows, counts)
    if served.has_one_position:
        content = served.record_json.written(view, owners, records, top=top)
    else:
        content = json_of(served, view, owners, records, counts, top)
    headers[DIGEST_HEADER] = content_digest(content)
    return Response(content, 200, headers, JSON)
