"""Samples per second of one server worker, against a bare ASGI application that returns as many bytes.

Both run under the same uvicorn configuration, each in a process of its own, and are asked in turn by the
same client: httpx2, as a trainer does, and a minimal one with several connections that keeps the worker busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import numpy as np
import psutil  # type: ignore[import-untyped]
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from benchmarks.caches import IMAGENET_ROWS, write_large_cache
from benchmarks.http_load import Asking, request_bytes
from benchmarks.report import alternate, write_results
from cache_builder.format.wire import RECORDS, ROW_TYPES, ROWS
from logit_server.run import base_url, bound, server_config
from logit_server.settings import Settings

IDS_PER_REQUEST = (1, 256, 4096)
CACHE_ROWS = (50_000, IMAGENET_ROWS)
# Short and many: what else the machine does changes from second to second.
ROUNDS = 25
SECONDS = 0.25
CONNECTIONS = 4
REQUESTS = 64

Client = Callable[[str, list[bytes]], float]
"""Sends the bodies to a URL again and again; gives answers per second."""


@dataclass
class Server:
    """A server under measurement, and the seconds of processor time of each of its requests."""

    base: str
    process: psutil.Process
    request_seconds: list[float] = field(default_factory=list)

    def ask(self, client: Client, path: str, bodies: list[bytes]) -> float:
        """Let the client ask for a while; gives answers per second."""
        before = sum(self.process.cpu_times()[:2])
        begun = time.perf_counter()
        rate = client(self.base + path, bodies)
        spent = sum(self.process.cpu_times()[:2]) - before
        self.request_seconds.append(spent / (rate * (time.perf_counter() - begun)))
        return rate


def main() -> None:
    """Measure, print and keep the table."""
    lines = [line for rows in CACHE_ROWS for line in measure_cache(rows)]
    write_results("server", "One server worker against a bare ASGI application", COLUMNS, lines, NOTES)


COLUMNS = [
    "client", "rows in the cache", "rows per request", "kdcache samples/s", "bare samples/s", "ratio",
    "lower quartile", "upper quartile", "kdcache CPU µs", "bare CPU µs", "CPU ratio",
]  # fmt: skip
NOTES = f"""
Medians of {ROUNDS} rounds of {SECONDS:g} s, taken in turn; the ratio is the median of the rounds' ratios,
with their quartiles; CPU: processor time of the server per request. One request asks for rows drawn at random
from one view, as raw uint32, and is answered with raw records of 77 bytes. The bare application reads the
same request and sends one of {REQUESTS} prebuilt answers of the same length, under the same uvicorn
configuration. Client "httpx2": one connection, as a trainer has. Client "minimal": {CONNECTIONS} connections
that do no more than count bytes, so that the worker is the bottleneck.

The target is 0.8 at 256 and 4096 rows. Where a worker is kept busy, two things stand against it (measured on
two cores of an AMD EPYC, 2026-11-22). At 256 rows the bare request takes 35 µs of the processor; reading the
rows, NumPy's `take`, the checks and the headers that name cache and request take 22 µs more, 19 of which are
also there in the shortest handler that answers the same. At 4096 rows of a view larger than the processor's
cache the memory takes 94 µs (23 ns for a row, 2.2 cache lines), more than the whole bare request.
"""


def measure_cache(rows: int) -> Iterator[list[object]]:
    """The lines of the table for a cache of so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.zarr")
        name = write_large_cache(path, rows).name
        with product(path) as ours:
            for client, ids in itertools.product(CLIENTS, IDS_PER_REQUEST):
                yield [client, rows, ids, *compare(CLIENTS[client], ours, name, random_rows(rows, ids))]


def compare(client: Client, ours: Server, name: str, bodies: list[bytes]) -> list[float]:
    """One line of the table from its fourth column on."""
    path = f"/v1/caches/{name}/records?view=0"
    ids = len(bodies[0]) // ROW_TYPES[ROWS].itemsize
    ours.request_seconds.clear()
    with bare(answer_length(ours.base + path, bodies[0])) as theirs:
        answer_length(theirs.base + path, bodies[0])
        measured = alternate(
            {
                "kdcache": lambda: ids * ours.ask(client, path, bodies),
                "bare": lambda: ids * theirs.ask(client, path, bodies),
            },
            ROUNDS,
        )
    ratios = [ours / theirs for ours, theirs in zip(measured["kdcache"], measured["bare"], strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    rates = [statistics.median(measured[name]) for name in ("kdcache", "bare")]
    cpu = [1e6 * statistics.median(server.request_seconds) for server in (ours, theirs)]
    return [*rates, middle, lower, upper, *cpu, cpu[1] / cpu[0]]


def random_rows(rows: int, ids: int) -> list[bytes]:
    """Request bodies of ``ids`` rows each."""
    drawn = np.random.default_rng(ids).integers(0, rows, (REQUESTS, ids), dtype=np.uint32)
    return [body.astype(ROW_TYPES[ROWS]).tobytes() for body in drawn]


def minimal(url: str, bodies: list[bytes]) -> float:
    """Answers per second of ``CONNECTIONS`` connections, each of which waits for its answer."""
    requests = [request_bytes(url, body) for body in bodies]
    return uvloop.run(_answers_per_second(url, requests))


async def _answers_per_second(url: str, requests: list[bytes]) -> float:
    split = urllib.parse.urlsplit(url)
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda: Asking(requests), split.hostname or "", split.port or 0)
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(SECONDS / 10)  # warm-up
    begun, before = time.perf_counter(), sum(asking.answers for _, asking in pairs)
    await asyncio.sleep(SECONDS)
    answered = sum(asking.answers for _, asking in pairs) - before
    elapsed = time.perf_counter() - begun
    for transport, asking in pairs:
        assert asking.status == b"200", asking.status
        transport.abort()
    return answered / elapsed


def httpx2_client(url: str, bodies: list[bytes]) -> float:
    """Answers per second of one httpx2 connection."""
    headers = {"Content-Type": ROWS, "Accept": RECORDS}
    with httpx2.Client(headers=headers) as client:
        client.post(url, content=bodies[0]).raise_for_status()
        begun, answered = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begun) < SECONDS:
            client.post(url, content=bodies[answered % len(bodies)]).raise_for_status()
            answered += 1
        return answered / elapsed


CLIENTS: dict[str, Client] = {"httpx2": httpx2_client, "minimal": minimal}


def answer_length(url: str, body: bytes) -> int:
    """Bytes of the answer to a request."""
    split = urllib.parse.urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(split.netloc, timeout=120)) as connection:
        connection.request("POST", f"{split.path}?{split.query}", body, {"Content-Type": ROWS})
        return len(connection.getresponse().read())


@contextlib.contextmanager
def product(cache: Path) -> Iterator[Server]:
    """``python -m logit_server`` on a free port."""
    environment = os.environ | {"KDCACHE_CACHES": str(cache), "KDCACHE_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "logit_server"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            base = process.stdout.readline().partition("/v1/")[0]
            yield Server(base, psutil.Process(process.pid))
        finally:
            process.terminate()


@contextlib.contextmanager
def bare(answer_bytes: int) -> Iterator[Server]:
    """The bare application on a free port, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_bare, args=(answer_bytes, theirs.send))
    process.start()
    theirs.close()  # or a process that dies at once would be waited for
    try:
        yield Server(ours.recv(), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.join()


def _serve_bare(answer_bytes: int, ready: Callable[[str], None]) -> None:
    settings = Settings(port=0)
    bodies = itertools.cycle([os.urandom(answer_bytes) for _ in range(REQUESTS)])
    headers = [(b"content-length", str(answer_bytes).encode()), (b"content-type", RECORDS.encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": next(bodies)})

    with bound(settings) as listener:
        ready(base_url(listener))
        uvicorn.Server(server_config(app, settings)).run(sockets=[listener])


async def _lifespan(receive: Receive, send: Send) -> None:
    while (kind := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{kind}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    main()
