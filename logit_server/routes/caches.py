"""``/v1/caches``: what is served, manifests, arrays and the table of ids."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from cache_builder.console.fidelity import chosen_point, fidelity_facts, fidelity_warnings, measured_views
from cache_builder.format import Cache, Manifest
from cache_builder.format.content_digest import content_digest
from cache_builder.format.manifest.compare import version_3_path
from cache_builder.format.wire import CACHES_PATH, DIGEST_HEADER, JSON, NDJSON, NPY
from logit_server.byte_ranges import select
from logit_server.errors import UnknownArrayError
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.routes.documents import BINARY, responses
from logit_server.served_caches import ServedCache
from logit_server.state import cache_of, catalog_of, is_head
from logit_server.storage import read_cache
from logit_server.wire import check_accepted, entity_tag, no_query

router = APIRouter(tags=["caches"], dependencies=[Depends(no_query)])

_DIGESTS = "samples/digest"
_IDS_PER_CHUNK = 4096


class Fidelity(BaseModel):
    """What the records keep of the teacher's logits, as calibration measured it when the cache was built.

    null stands for what the release that built the cache did not measure.
    """

    bytes_per_view: float
    """Bytes of a record on disk, for all records."""
    total_bytes: int
    """Bytes of all records on disk."""
    measured_on: str
    """The views that the other figures are of."""
    lost: float | None
    """Share of the logits' variance around their class means that decoded logits lose."""
    kd_cosines: tuple[float, float] | None
    """Cosines between the gradients of kd from decoded and from live logits, at T = 1 and 4."""
    gradient_cosine: float
    """The smallest such cosine over a few losses."""
    in_words: dict[str, str]
    """The same in sentences, and what a larger record would give."""
    warnings: list[str]
    """What losses will not see, and the way out."""


class CacheSummary(BaseModel):
    """A served cache in one line."""

    name: str
    cache_id: str
    samples: int
    views: int
    classes: int
    record_bytes: int
    fidelity: Fidelity | None = None
    """null where calibration had nothing to choose: every class is stored by itself."""


class EarlierManifest(BaseModel):
    """The manifest of a cache that an earlier release wrote: FORMAT.md has its keys."""

    model_config = ConfigDict(extra="allow")

    format_version: Literal[1, 2]


class CacheList(BaseModel):
    """Every served cache, in the order they were named at start."""

    caches: list[CacheSummary]


@router.get(CACHES_PATH, response_model=CacheList)
async def list_caches(request: Request) -> CacheList:
    """Every cache of this server that the sender's token sees."""
    return CacheList(caches=[summary(served) for served in catalog_of(request)])


def summary(served: ServedCache) -> CacheSummary:
    """What the list says about a cache."""
    return CacheSummary(
        name=served.name,
        cache_id=served.cache_id,
        samples=served.samples,
        views=served.views,
        classes=served.manifest.classes,
        record_bytes=served.record_bytes,
        fidelity=fidelity(served),
    )


def fidelity(served: ServedCache) -> Fidelity | None:
    """What is known of a cache's faithfulness."""
    manifest = served.manifest
    point = chosen_point(manifest)
    if point is None:
        return None
    return Fidelity(
        bytes_per_view=served.stored_bytes / (served.samples * served.views),
        total_bytes=served.stored_bytes,
        measured_on=measured_views(manifest),
        lost=point.lost,
        kd_cosines=point.kd_cosines,
        gradient_cosine=point.gradient_cosine,
        in_words=fidelity_facts(manifest),
        warnings=fidelity_warnings(manifest),
    )


@router.get(CACHES_PATH + "/{name}", response_model=Manifest | EarlierManifest, responses=responses(404, 422))
async def read_manifest(request: Request, name: str) -> Response:
    """The manifest, with names in place of the builder's paths. ``name``: the cache's, or its cache_id."""
    served = cache_of(request)
    headers = caching_headers(request, served, entity_tag(served.cache_id, "manifest"))
    if fresh := not_modified(request, headers):
        return fresh
    headers[DIGEST_HEADER] = content_digest(served.manifest_json)
    return Response(served.manifest_json, 200, headers, JSON)


@router.get(
    CACHES_PATH + "/{name}/arrays/{path:path}",
    response_class=Response,
    responses=responses(404, 406, 416, 422, 500, 503, content={NPY: BINARY}),
)
async def read_array(request: Request, name: str, path: str) -> Response:
    """One header array (``codec/logits/mean``, ``samples/label``, …) as a .npy file."""
    served = cache_of(request)
    check_accepted(request, NPY)
    _check_path(served, path)
    tag = entity_tag(served.cache_id, "array", path.replace("/", "."))
    headers = caching_headers(request, served, tag)
    if fresh := not_modified(request, headers):
        return fresh
    content = await run_in_threadpool(_npy, served, path)
    selected = select(request, len(content), tag)
    part = content[selected.bytes.start : selected.bytes.stop]
    headers |= selected.headers | {DIGEST_HEADER: content_digest(part)}
    return Response(part, selected.status, headers, NPY)


def _check_path(served: ServedCache, path: str) -> None:
    known = [*served.manifest.digests, _DIGESTS]
    if path not in known:
        raise UnknownArrayError(
            f"cache {served.name!r} has no array {path[:128]!r}; it has {', '.join(sorted(known))}"
        )


def _npy(served: ServedCache, path: str) -> bytes:
    def read(cache: Cache) -> NDArray[Any]:
        # A cache that was extended may have the same array under the path of a newer format version.
        paths = {version_3_path(known): known for known in cache.manifest.digests}
        return cache.digests if path == _DIGESTS else cache.header_array(paths[version_3_path(path)])

    array = read_cache(served, f"array {path}", read)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@router.get(
    CACHES_PATH + "/{name}/ids",
    response_class=Response,
    responses=responses(
        404, 406, 422, content={NDJSON: {"example": '{"row": 0, "id": "cat/1.jpg", "label": 3}\n'}}
    ),
)
async def read_ids(request: Request, name: str) -> Response:
    """Every sample id with its row and label, one JSON object a line, in row order."""
    served = cache_of(request)
    check_accepted(request, NDJSON)
    headers = caching_headers(request, served, entity_tag(served.cache_id, "ids"))
    lines = () if is_head(request) else id_lines(served)
    return not_modified(request, headers) or StreamingResponse(lines, 200, headers, NDJSON)


def id_lines(served: ServedCache) -> Iterator[str]:
    """The lines of the id table, some thousand at a time."""
    ids, labels = served.cache.ids, served.cache.labels
    for start in range(0, served.samples, _IDS_PER_CHUNK):
        stop = min(start + _IDS_PER_CHUNK, served.samples)
        known = (None if label < 0 else label for label in labels[start:stop].tolist())
        table = zip(range(start, stop), ids[start:stop], known, strict=True)
        yield "".join(
            json.dumps({"row": row, "id": sample_id, "label": label}, ensure_ascii=False) + "\n"
            for row, sample_id, label in table
        )
