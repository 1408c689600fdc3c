from __future__ import annotations

import time
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cache_builder.format import Cache
from cache_builder.format.wire import ROWS
from logit_server.board import STATUSES
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.supervision import CAUSES
from logit_server.tokens import new_token
from tests.logit_server.processes import started
from tests.logit_server.raw_client import connect
from tests.logit_server.test_supervision import replaced, workers_of

RECORDS = "/v1/caches/{name}/records"
Samples = dict[tuple[str, ...], float]


def metrics(url: str, token: str | None = None) -> Samples:
    """Every sample under its name and the values of its labels in the order of their names."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = httpx2.get(f"{url}/metrics", headers=headers, timeout=120)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def ask(url: str, rows: int) -> httpx2.Response:
    body = np.arange(rows, dtype="<u4").tobytes()
    target = f"{url}/v1/caches/synthetic/records"
    return httpx2.post(target, content=body, headers={"Content-Type": ROWS}, timeout=120)


@pytest.fixture
def server(cache_path: Path, tmp_path: Path) -> str:
    with serving(Settings(caches=(str(cache_path),), port=0, page_dir=tmp_path, max_ids=50)) as base:
        yield base


def test_requests_rows_and_bytes_are_counted_by_route(server: str, cache: Cache) -> None:
    for _ in range(3):
        assert ask(server, 20).status_code == 200
    assert httpx2.get(f"{server}/v1/caches/nobody").status_code == 404
    found = metrics(server)
    assert found["kdcache_requests_total", RECORDS, "200"] == 3
    assert found["kdcache_requests_total", "/v1/caches/{name}", "404"] == 1
    assert found["kdcache_rows_served_total",] == 60
    assert found["kdcache_response_bytes_total", RECORDS] == 60 * cache.record_bytes
    assert found["kdcache_request_duration_seconds_count", RECORDS] == 3
    assert found["kdcache_request_duration_seconds_bucket", "+Inf", RECORDS] == 3
    assert found["kdcache_request_duration_seconds_sum", RECORDS] > 0
    assert found["kdcache_requests_in_flight",] == 1


def test_pages_are_counted_by_the_block(server: str, cache: Cache) -> None:
    ask(server, 33)
    found = metrics(server)
    assert found["kdcache_page_loads_total",] == 2
    assert found["kdcache_page_loaded_bytes_total",] == 64 * cache.record_bytes
    assert found["kdcache_page_bytes",] == 64 * cache.record_bytes
    assert found["kdcache_page_load_seconds_count",] == 2
    assert found["kdcache_page_load_seconds_sum",] > 0


def test_evictions_are_counted(cache_path: Path, cache: Cache) -> None:
    budget = 2 * 32 * cache.record_bytes
    with serving(Settings(caches=(str(cache_path),), port=0, page_bytes=budget)) as base:
        httpx2.get(f"{base}/v1/caches/synthetic/views/0/records")
        found = metrics(base)
    assert found["kdcache_page_evictions_total",] >= 1
    assert found["kdcache_page_evicted_bytes_total",] >= 32 * cache.record_bytes
    assert found["kdcache_page_bytes",] <= found["kdcache_page_budget_bytes",] == budget


def test_loads_that_fail_are_counted_by_what_was_wrong(own_cache: Path) -> None:
    with serving(Settings(caches=(str(own_cache),), port=0)) as base:
        for shard in (own_cache / "records").rglob("c/**/*"):
            if shard.is_file():
                shard.write_bytes(bytes(shard.stat().st_size))
        assert ask(base, 1).status_code == 500
        found = metrics(base)
    assert found["kdcache_page_load_failures_total", "corrupt"] == 1
    assert found["kdcache_page_loads_total",] == 0


@pytest.mark.parametrize(
    ("sent", "reason", "status"),
    [
        (b"NO HTTP AT ALL\r\n\r\n", "malformed", "400"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", "target_too_long", "414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000, "header_too_large", "431"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", "too_large", "413"),
    ],
)
def test_refusals_before_the_routes_are_counted(server: str, sent: bytes, reason: str, status: str) -> None:
    with connect(server, sent) as client:
        assert f" {status} ".encode() in client.receive(100)
    found = metrics(server)
    assert found["kdcache_requests_refused_total", reason] == 1
    assert found["kdcache_requests_total", "unmatched", status] == 1


def test_refusals_of_the_application_are_counted(server: str) -> None:
    assert ask(server, 51).status_code == 413
    assert httpx2.get(f"{server}/v1/caches", headers={"Host": "evil.example"}).status_code == 421
    found = metrics(server)
    assert found["kdcache_requests_refused_total", "too_large"] == 1
    assert found["kdcache_requests_refused_total", "host"] == 1


def test_a_slow_client_is_counted(cache_path: Path) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, header_s=0.1)) as base:
        with connect(base, b"GET / HTTP/1.1\r\n") as client:
            assert b" 408 " in client.receive(100)
        assert metrics(base)["kdcache_requests_refused_total", "slow_client"] == 1


def test_no_label_grows_with_what_clients_send(server: str) -> None:
    for number in range(20):
        httpx2.get(f"{server}/nothing/{number}")
        httpx2.get(f"{server}/v1/caches/{number}/samples/{number}")
        httpx2.get(f"{server}/v1/caches/synthetic/samples/{number}")
        httpx2.request(f"M{number}", f"{server}/v1/caches")
    found = metrics(server)
    routes = {labels[0] for name, *labels in found if name == "kdcache_requests_total"}
    assert routes <= {
        "/metrics", "/v1/caches", "/v1/caches/{name}/samples/{sample_id}", "unmatched"
    }  # fmt: skip
    assert {labels[1] for name, *labels in found if name == "kdcache_requests_total"} <= set(STATUSES)


def test_a_token_needs_the_scope_metrics_and_sees_no_other_caches(
    cache_path: Path, odd_path: Path, tmp_path: Path
) -> None:
    reading, line = new_token("reading")
    watching, hashed = new_token("watching")
    hashed = hashed.replace('["read"]', '["metrics"], caches = ["odd"]')
    (tmp_path / "tokens.toml").write_text(f"{line}\n{hashed}\n")
    settings = Settings(caches=(str(cache_path), str(odd_path)), port=0, tokens=tmp_path / "tokens.toml")
    with serving(settings) as base:
        assert httpx2.get(f"{base}/metrics").status_code == 401
        refused = httpx2.get(f"{base}/metrics", headers={"Authorization": f"Bearer {reading}"})
        assert refused.status_code == 403
        found = metrics(base, watching)
        listed = httpx2.get(f"{base}/v1/caches", headers={"Authorization": f"Bearer {watching}"})
        assert listed.status_code == 403
    assert [key[1] for key in found if key[0] == "kdcache_cache_info"] == ["odd"]
    assert found["kdcache_requests_refused_total", "no_token"] == 1
    assert found["kdcache_requests_refused_total", "scope"] == 1


def test_every_reason_and_cause_is_there_before_it_happens(server: str) -> None:
    found = metrics(server)
    assert [found["kdcache_worker_restarts_total", cause] for cause in CAUSES] == [0] * len(CAUSES)


def test_the_build_is_named(server: str) -> None:
    (labels,) = (labels for name, *labels in metrics(server) if name == "kdcache_build_info")
    assert "0.1.0" in labels


def test_an_open_metrics_client_gets_its_format(server: str) -> None:
    response = httpx2.get(
        f"{server}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_workers_are_counted_together_and_nothing_is_lost_when_one_dies(cache_path: Path) -> None:
    with started(cache_path, workers=2) as server:
        answered_by: set[str] = set()
        asked = 0
        deadline = time.monotonic() + 120
        while len(answered_by) < 2 and time.monotonic() < deadline:
            # A connection of its own each time: the kernel picks the worker.
            answered_by.add(ask(server.url, 10).headers["x-request-id"].partition("-")[0])
            asked += 1
        assert len(answered_by) == 2
        for _ in range(3):
            found = metrics(server.url)
            assert found["kdcache_requests_total", RECORDS, "200"] == asked
            assert found["kdcache_rows_served_total",] == 10 * asked
            live = httpx2.get(f"{server.url}/live.json", timeout=120).json()
            assert live["records_served"] == 10 * asked
        killed = psutil.Process(workers_of(server)[0].pid)
        killed.kill()
        replaced(server, killed)
        found = metrics(server.url)
        assert found["kdcache_requests_total", RECORDS, "200"] == asked
        assert found["kdcache_worker_restarts_total", "SIGKILL"] == 1
        assert found["kdcache_requests_in_flight",] == 1
