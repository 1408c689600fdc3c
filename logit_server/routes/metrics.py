"""``/metrics``: what Prometheus asks for, about all workers of the server together."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from fastapi import APIRouter, Depends, Request
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from logit_server.admission import METRICS_PATH
from logit_server.board import (
    ABANDONED,
    BOUNDS_S,
    CONNECTIONS,
    EVICTED_BYTES,
    EVICTIONS,
    FAILURES,
    IN_FLIGHT,
    LOAD_SECONDS,
    LOADED_BYTES,
    LOADS,
    ROWS,
    STATUSES,
    Key,
)
from logit_server.refusal_reasons import REASONS
from logit_server.served_caches import Catalog
from logit_server.state import State, catalog_of, pages_of, state_of
from logit_server.supervision import CAUSES
from logit_server.wire import no_query

router = APIRouter(tags=["health"])

_PLAIN = {"schema": {"type": "string"}}


@router.get(
    METRICS_PATH,
    response_class=Response,
    responses={200: {"content": {"text/plain": _PLAIN}}},
    dependencies=[Depends(no_query)],
)
async def read_metrics(request: Request) -> Response:
    """Counters and gauges of all workers in the text format of Prometheus (or OpenMetrics, by Accept).

    A token needs the scope ``metrics``. Of caches, those are named that the token may know of.
    """
    state = state_of(request)
    used_bytes = pages_of(request).folder.used_bytes()
    found = Collected(state, await state.totals(), catalog_of(request), used_bytes)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(found), headers={"content-type": media_type, "cache-control": "no-store"})


@dataclass(frozen=True)
class Collected:
    """What was counted, as a registry of prometheus_client."""

    state: State
    totals: Mapping[Key, float]
    catalog: Catalog
    page_bytes: int

    def collect(self) -> Iterator[Metric]:
        """Every metric. No label has more values than there are routes, statuses, reasons or caches."""
        yield from self._requests()
        yield from self._pages()
        yield from self._server()

    def _requests(self) -> Iterator[Metric]:
        totals, routes = self.totals, self.state.counters.board.routes
        requests = CounterMetricFamily(
            "kdcache_requests", "Requests by route and status.", labels=["route", "status"]
        )
        durations = HistogramMetricFamily(
            "kdcache_request_duration_seconds",
            "Seconds from a request's header to its end.",
            labels=["route"],
        )
        sent = CounterMetricFamily(
            "kdcache_response_bytes", "Bytes of bodies that were sent.", labels=["route"]
        )
        for route in routes:
            for status in STATUSES:
                if count := totals["requests", route, status]:
                    requests.add_metric([route, status], count)
            classes = _cumulative(totals, route)
            if classes[-1][1]:
                durations.add_metric([route], classes, totals["seconds", route])
                sent.add_metric([route], totals["bytes", route])
        yield from (requests, durations, sent)
        yield CounterMetricFamily(
            "kdcache_rows_served", "Records that were sent, or began to be sent.", value=totals[ROWS]
        )
        yield _by_label(
            "kdcache_requests_refused", "Requests that were refused.", "reason", REASONS, totals, "refused"
        )
        yield CounterMetricFamily(
            "kdcache_requests_abandoned",
            "Requests whose answer did not reach its end.",
            value=totals[ABANDONED],
        )
        yield GaugeMetricFamily("kdcache_requests_in_flight", "Requests in work.", totals[IN_FLIGHT])
        yield GaugeMetricFamily("kdcache_connections_open", "Connections that are open.", totals[CONNECTIONS])

    def _pages(self) -> Iterator[Metric]:
        totals = self.totals
        yield SummaryMetricFamily(
            "kdcache_page_load_seconds",
            "Seconds that blocks took to be read from their stores.",
            int(totals[LOADS]),
            totals[LOAD_SECONDS],
        )
        for name, text, key in (
            ("kdcache_page_loads", "Blocks that were read from their stores.", LOADS),
            ("kdcache_page_loaded_bytes", "Bytes of records of these blocks.", LOADED_BYTES),
            ("kdcache_page_evictions", "Blocks whose memory was given back.", EVICTIONS),
            ("kdcache_page_evicted_bytes", "Bytes of records of these blocks.", EVICTED_BYTES),
        ):
            yield CounterMetricFamily(name, text, value=totals[key])
        text = "Blocks that could not be read from their stores."
        yield _by_label("kdcache_page_load_failures", text, "error", FAILURES, totals, "failures")
        yield GaugeMetricFamily("kdcache_page_bytes", "Bytes of records in page files.", self.page_bytes)
        budget = int(self.state.settings.page_bytes)
        yield GaugeMetricFamily("kdcache_page_budget_bytes", "Most bytes of records in page files.", budget)

    def _server(self) -> Iterator[Metric]:
        text = "Workers that ended while the server ran, and were replaced."
        yield _by_label("kdcache_worker_restarts", text, "cause", CAUSES, self.totals, "restarts")
        workers = self.state.settings.workers
        yield GaugeMetricFamily("kdcache_workers", "Processes that answer requests.", workers)
        build = {"version": version("kdcache"), "python": platform.python_version()}
        yield InfoMetricFamily("kdcache_build", "What runs.", build)
        caches = GaugeMetricFamily(
            "kdcache_cache_info", "The caches that are served.", labels=["cache", "cache_id"]
        )
        for served in self.catalog:
            caches.add_metric([served.name, served.cache_id], 1)
        yield caches


def _by_label(
    name: str, text: str, label: str, values: tuple[str, ...], totals: Mapping[Key, float], key: str
) -> Metric:
    """A counter with every value of its label, at 0 too: a rate needs what was before the first time."""
    found = CounterMetricFamily(name, text, labels=[label])
    for value in values:
        found.add_metric([value], totals[key, value])
    return found


def _cumulative(totals: Mapping[Key, float], route: str) -> list[tuple[str, float]]:
    """The classes of durations as Prometheus has them: each with all that are shorter."""
    total, found = 0.0, []
    for at, bound in enumerate([*map(str, BOUNDS_S), "+Inf"]):
        total += totals["durations", route, str(at)]
        found.append((bound, total))
    return found
