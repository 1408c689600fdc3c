"""The pages for people: every cache, one cache with its samples, one sample, the documentation of the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from cache_builder.format import KDCacheError
from cache_builder.format.wire import JSON
from logit_server.board import ROWS
from logit_server.decoded import decode_records
from logit_server.errors import ForbiddenError, RequestError
from logit_server.problems import PROBLEMS_PATH, meanings, respond_to
from logit_server.routes.answers import caching_headers, not_modified
from logit_server.served_caches import ServedCache
from logit_server.state import cache_of, catalog_of, pages_of, state_of
from logit_server.web import browse
from logit_server.web.browse import Found, Search, find
from logit_server.web.html import page
from logit_server.web.overview import Overview, overview
from logit_server.web.top_classes import UNKNOWN, TopClasses
from logit_server.web.worker import web_of
from logit_server.wire import QueryKeys, answer_type, entity_tag, no_query

HTML = "text/html"

_BARS = 8
"""Classes that a sample's page shows of each view."""
_VIEWS = 6
"""Views on a sample's page, or positions of one view."""
_NAMES_OFFERED = 1000
"""Names of classes that the search offers while somebody types."""


class PageRoute(APIRoute):
    """A route whose errors are pages too, for those who read pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with what it raises as a page."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except (KDCacheError, HTTPException, RequestValidationError) as error:
                response = await respond_to(request, error)
                if not _reads_pages(request):
                    return response
                said = json.loads(bytes(response.body))
                return page("error.html", response.status_code, error=said["error"], detail=said["detail"])

        return guarded


router = APIRouter(include_in_schema=False, route_class=PageRoute)


def _reads_pages(request: Request) -> bool:
    """Whether a client prefers a page to JSON, as browsers do."""
    accept = request.headers.get("accept", "").encode("latin-1")
    try:
        return answer_type(accept, (JSON, HTML)) == HTML
    except KDCacheError:
        return False


@router.get("/", dependencies=[Depends(no_query)])
async def read_overview(request: Request) -> Response:
    """Every cache. Programs find nothing here: theirs is ``/v1/caches``."""
    if not _reads_pages(request):
        raise HTTPException(404)
    caches = await run_in_threadpool(_overviews, request)
    return page("overview.html", caches=caches, has_figures=not catalog_of(request).is_part)


def _overviews(request: Request) -> list[Overview]:
    return [overview(served, str(request.base_url)) for served in catalog_of(request)]


@router.get("/live.json", dependencies=[Depends(no_query)])
async def read_live(request: Request) -> Response:
    """What the server did so far, all of its workers together, and how full the pages are.

    It tells of the traffic of all caches: who may know of some of them alone is refused.
    """
    if catalog_of(request).is_part:
        raise ForbiddenError("this token sees some caches alone, and these figures are of the whole server")
    state, pages = state_of(request), pages_of(request)
    figures = {
        "records_served": int((await state.totals())[ROWS]),
        "page_bytes": pages.folder.used_bytes(),
        "page_budget": int(state.settings.page_bytes),
    }
    return JSONResponse(figures, headers={"cache-control": "no-store"})


@router.get("/caches/{name}")
async def read_cache(request: Request, name: str, asked: Annotated[Search, Query()]) -> Response:
    """A cache: how good it is, and its samples."""
    served, web = cache_of(request), web_of(request)
    if asked.needs_answers and not served.has_one_position:
        raise RequestError(
            f"samples of cache {served.name!r} have several positions: search them by id or label"
        )
    top = web.top(served) if asked.needs_answers else await web.soon(served)
    found = await run_in_threadpool(find, served, top, asked)
    about = await run_in_threadpool(overview, served, str(request.base_url))
    return page(
        "cache.html",
        about=about,
        figures=await run_in_threadpool(web.figures, served),
        asked=asked,
        found=found,
        most=browse.MOST_MATCHES,
        samples=_listed(served, found, top),
        top=top if asked.needs_answers else None,
        names=(served.cache.class_names or ())[:_NAMES_OFFERED],
        earlier=_link(asked, asked.page - 1),
        later=_link(asked, asked.page + 1),
    )


def _link(asked: Search, number: int) -> str:
    """The query of another page of a search."""
    given = asked.model_dump(exclude_defaults=True) | {"page": number}
    return urlencode(given, errors="surrogatepass")


def _listed(served: ServedCache, found: Found, top: TopClasses | None) -> list[dict[str, Any]]:
    """What the list says about each sample; the teacher's answer where it is known already."""
    listed = []
    for row in found.rows.tolist():
        label = int(served.cache.labels[row])
        best = UNKNOWN if top is None else int(top.classes[row])
        listed.append(
            {
                "row": row,
                "id": served.cache.ids[row],
                "label": None if label < 0 else titled(served, label),
                "best": None if best == UNKNOWN else titled(served, best),
                "is_wrong": UNKNOWN not in (best, label) and best != label,
                "probability": 0.0 if top is None else float(top.probabilities[row]),
            }
        )
    return listed


def titled(served: ServedCache, class_id: int) -> str:
    """A class by its name, or by its number where nobody named it."""
    return served.class_names.get(class_id) or f"class {class_id}"


@router.get("/caches/{name}/figures.json", dependencies=[Depends(no_query)])
async def read_figures(request: Request, name: str) -> Response:
    """The numbers of a cache's plots."""
    served = cache_of(request)
    headers = caching_headers(request, served, entity_tag(served.cache_id, "figures"))
    if fresh := not_modified(request, headers):
        return fresh
    found = await run_in_threadpool(web_of(request).figures, served)
    return Response(found.model_dump_json(), 200, headers, JSON)


@router.get("/caches/{name}/progress.json", dependencies=[Depends(no_query)])
async def read_progress(request: Request, name: str) -> Response:
    """How many rows the search for the teacher's best classes has looked at."""
    served = cache_of(request)
    top = web_of(request).known_top(served)
    rows, failure = (0, None) if top is None else (top.rows, top.failure)
    body = {"rows": rows, "samples": served.samples, "failure": failure}
    return JSONResponse(body, headers={"cache-control": "no-store"})


class SampleQuery(QueryKeys):
    """Which sample, and the first of the views to show."""

    row: int = Field(ge=0)
    view: int = Field(0, ge=0)


@router.get("/caches/{name}/sample")
async def read_sample(request: Request, name: str, asked: Annotated[SampleQuery, Query()]) -> Response:
    """A sample: what the teacher said in some views side by side, and the views themselves."""
    served = cache_of(request)
    served.check_view(asked.view)
    served.check_rows(np.array([asked.row]))
    one = served.has_one_position
    views = range(asked.view, min(asked.view + (_VIEWS if one else 1), served.views))
    records = [record for view in views for record in await _said(request, served, asked.row, view)]
    label = int(served.cache.labels[asked.row])
    return page(
        "sample.html",
        served=served,
        row=asked.row,
        sample_id=served.cache.ids[asked.row],
        label=None if label < 0 else titled(served, label),
        views=views,
        step=_VIEWS if one else 1,
        records=records[:_VIEWS],
        positions=None if one else int(served.cache.positions.counts(np.array([asked.row]))[0]),
        bars=_BARS,
        has_pictures=web_of(request).pictures.has(served),
    )


async def _said(request: Request, served: ServedCache, row: int, view: int) -> list[dict[str, Any]]:
    """The decoded records of a row in a view: one of each of its first positions."""
    positions = served.cache.positions.of(np.array([row]))[:_VIEWS]
    records = await pages_of(request).gather(served, view, positions)
    rows = np.full(len(positions), row)
    return await run_in_threadpool(decode_records, served, view, rows, records, _BARS)


class PictureQuery(QueryKeys):
    """Which picture."""

    row: int = Field(ge=0)
    view: int = Field(ge=0)


@router.get("/caches/{name}/picture")
async def read_picture(request: Request, name: str, asked: Annotated[PictureQuery, Query()]) -> Response:
    """A view of a sample as the teacher saw it, as a PNG."""
    served, pictures = cache_of(request), web_of(request).pictures
    served.check_view(asked.view)
    served.check_rows(np.array([asked.row]))
    if not pictures.has(served):
        raise RequestError(
            f"this server knows no pictures of cache {served.name!r}: start it with --data SPEC"
        )
    headers = caching_headers(request, served, entity_tag(served.cache_id, "picture", asked.row, asked.view))
    if fresh := not_modified(request, headers):
        return fresh
    picture = await pictures.render(served, asked.row, asked.view)
    return Response(picture, 200, headers, "image/png")


@router.get(PROBLEMS_PATH, dependencies=[Depends(no_query)])
async def read_problems(request: Request) -> Response:
    """What each kind of error means: where the ``type`` of problem details leads."""
    return page("problems.html", meanings=meanings())


@router.get("/docs", dependencies=[Depends(no_query)])
async def read_docs(request: Request) -> Response:
    """The documentation of the API, which needs nothing from outside."""
    return page("docs.html")
