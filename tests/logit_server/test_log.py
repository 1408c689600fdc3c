from __future__ import annotations

import json
import logging
import re
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from cache_builder.format.wire import ROWS
from logit_server.log import JsonLines, TextLines
from tests.logit_server.processes import Started, started
from tests.logit_server.raw_client import connect
from tests.logit_server.test_supervision import replaced, workers_of

INJECTED = "x\n2026-12-01T00:00:00.000+00:00 INFO    all is well\r\x1b[2J\x85\u2028{}"


def record(message: str, *arguments: object, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("logit_server", logging.INFO, "", 0, message, arguments, exc_info)
    made.__dict__ |= extra
    return made


def test_a_json_line_has_time_level_event_and_fields() -> None:
    line = json.loads(JsonLines().format(record("saw %d", 3, event="seen", fields={"count": 3})))
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    assert line | {"level": "info", "event": "seen", "message": "saw 3", "count": 3} == line


def test_nothing_that_is_logged_adds_a_line_or_steers_a_terminal() -> None:
    for text in (INJECTED, "".join(map(chr, range(0x300))) + "\u2028\u2029"):
        made = record("it said %s", text, event="seen", fields={"said": text})
        for line in (JsonLines().format(made), TextLines().format(made)):
            assert len(line.splitlines()) == 1
            assert line.isprintable() or not any(character < " " for character in line)
        assert json.loads(JsonLines().format(made))["said"] == text


def test_a_traceback_is_a_field_or_indented() -> None:
    try:
        raise ValueError(INJECTED)
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    assert "ValueError" in json.loads(JsonLines().format(made))["traceback"]
    first, *rest = TextLines().format(made).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest)


def test_what_is_no_text_of_unicode_is_logged_all_the_same() -> None:
    made = record("%s", "\udcff", event="seen", fields={"path": Path("/x")})
    assert json.loads(JsonLines().format(made))["path"] == "/x"


def lines_of(server: Started) -> list[dict[str, Any]]:
    """Stop a server that logs as JSON, and give its log."""
    server.process.terminate()
    _, stderr = server.process.communicate(timeout=120)
    return [json.loads(line) for line in stderr.splitlines()]


def test_a_run_is_told_from_start_to_stop(cache_path: Path, tmp_path: Path) -> None:
    with started(
        cache_path, log_format="json", access_log=True, token="a-secret", page_dir=tmp_path
    ) as server:
        caller = httpx2.Client(base_url=server.url, headers={"Authorization": "Bearer a-secret"}, timeout=120)
        body = np.arange(5, dtype="<u4").tobytes()
        headers = {"Content-Type": ROWS, "X-Request-Id": "mine-1"}
        with caller:
            caller.post("/v1/caches/synthetic/records?view=1", content=body, headers=headers)
            caller.get("/v1/caches/synthetic/samples/a-private-id")
            caller.get("/v1/caches?token=a-private-query")
        httpx2.get(f"{server.url}/v1/caches", headers={"Authorization": "Bearer another-secret"}, timeout=120)
        lines = lines_of(server)
    events = [line["event"] for line in lines]
    assert (events[0], events[-1]) == ("started", "stopped")
    begun = lines[0]
    assert begun["settings"]["token"] == "set"
    assert begun["caches"][0]["name"] == "synthetic"
    assert begun["url"] == server.url
    (answered,) = (line for line in lines if line.get("request_id") == "mine-1")
    expected = {
        "event": "request", "method": "POST", "route": "/v1/caches/{name}/records", "cache": "synthetic",
        "status": 200, "rows": 5, "peer": "127.0.0.1", "level": "info",
    }  # fmt: skip
    assert answered | expected == answered
    assert answered["bytes"] > 0
    assert answered["duration"] > 0
    (refused,) = (line for line in lines if line["event"] == "refused")
    assert (refused["reason"], refused["status"], refused["peer"]) == ("no_token", 401, "127.0.0.1")
    (loaded,) = (line for line in lines if line["event"] == "pages_loaded")
    assert (loaded["cache"], loaded["view"], loaded["blocks"]) == ("synthetic", 1, 1)
    assert not re.search("a-secret|another-secret|a-private", json.dumps(lines))


def test_what_hostile_clients_send_stays_on_one_line(cache_path: Path) -> None:
    with started(cache_path, log_format="json", access_log=True) as server:
        path = "/v1/caches/x%0aINFO%20all%20is%20well%0d%1b%5b2J/y"
        assert httpx2.get(server.url + path, timeout=120).status_code == 404
        for sent in (
            b"GET /%0ax HTTP/1.1\r\nHost: evil\x85host\r\n\r\n",
            b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
            b"M\x00 / HTTP/1.1\r\n\r\n",
        ):
            with connect(server.url, sent) as client:
                client.receive(10)
        lines = lines_of(server)  # each of them parses
    assert {line["reason"] for line in lines if line["event"] == "refused"} == {"host", "malformed"}


def test_text_is_for_people_and_the_level_is_heeded(cache_path: Path) -> None:
    with started(cache_path, log_level="warning") as server:
        httpx2.get(f"{server.url}/v1/caches/synthetic/views/0/records", timeout=120)
        server.process.terminate()
        _, stderr = server.process.communicate(timeout=120)
    assert stderr == ""


def test_a_flood_of_refusals_does_not_fill_the_log(cache_path: Path) -> None:
    with started(cache_path, log_format="json") as server, httpx2.Client(timeout=120) as caller:
        for _ in range(200):
            caller.get(f"{server.url}/v1/caches", headers={"Host": "evil.example"})
        lines = lines_of(server)
    one_by_one = sum(line["event"] == "refused" for line in lines)
    summed = sum(line["count"] for line in lines if line["event"] == "refused_more")
    assert one_by_one < 200
    assert one_by_one + summed == 200


def test_workers_log_what_ended_them(cache_path: Path) -> None:
    with started(cache_path, workers=2, log_format="json") as server:
        assert httpx2.get(f"{server.url}/livez", timeout=120).status_code == 200
        killed = workers_of(server)[0]
        killed.send_signal(signal.SIGSEGV)
        replaced(server, killed)
        server.process.terminate()
        _, stderr = server.process.communicate(timeout=120)
    ended = [json.loads(line) for line in stderr.splitlines() if '"worker_ended"' in line]
    assert [(line["worker"], line["cause"]) for line in ended] == [(killed.pid, "SIGSEGV")]
