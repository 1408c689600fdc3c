"""What a remote store costs: HTTP requests by command, and page loads where every answer is 20 ms late."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import numpy as np
from rich.console import Console

from benchmarks.caches import write_large_cache
from benchmarks.report import write_results
from cache_builder.build.pipeline import build
from cache_builder.build.preflight import check_build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import SILENT
from cache_builder.format.reader import Cache, open_cache
from cache_builder.look.inspect import describe, show
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.object_store import BUCKET, counted_http, free_port, s3_server

LATENCY_S = 0.02
ROWS, VIEWS = 200_000, 2
ROUNDS = 3
BEFORE = {"build": 523, "inspect": 183, "verify": 346}
"""As they were counted for a cache of five tiles before requests were shared (2026-11)."""

NOTES = f"""
"Requests": HTTP requests that moto's S3 server on loopback answered, for `digits:train` in two views and five
tiles of six objects: 65 objects, which a build must write. Requests for leases are left out: they are renewed
by the clock. "Before": in November 2026.
"Of the local rate": a view of {ROWS:,} records of seven arrays, read block by block (a page load) and whole,
from a server on loopback that answers every request {1e3 * LATENCY_S:.0f} ms late, against the
same from the disk; medians of {ROUNDS} rounds, in turn. "Eight at once": as a server loads pages, in eight
threads.
"""


def main() -> None:
    """Count, measure, print and keep the table."""
    rows = [["requests", name, BEFORE.get(name, ""), count] for name, count in requests()]
    with tempfile.TemporaryDirectory() as folder:
        write_large_cache(Path(folder, "large.zarr"), ROWS, VIEWS)
        rows += [["of the local rate", name, "", round(ratio, 3)] for name, ratio in rates(Path(folder))]
    write_results("store_requests", "What a remote store costs", ["what", "of", "before", "now"], rows, NOTES)


def requests() -> Iterator[tuple[str, int]]:
    """The requests of commands and readings, by name."""
    location = f"s3://{BUCKET}/five.zarr"
    settings = BuildSettings(
        teacher="tests.cache_builder.models:small", data="digits:train", out=location, views=2,
        workers=0, device="cpu", tile_rows=256, input_size=16,
    )  # fmt: skip
    with s3_server(), counted_http() as seen:

        def count(name: str, act: Callable[[], object]) -> tuple[str, int]:
            seen.clear()
            act()
            return name, sum(not key.endswith("/.kdcache-builder") for key in seen)

        yield count("build", lambda: build(settings, SILENT, source=check_build(settings)))
        yield count("inspect", lambda: show(describe(location, None, 0), Console(file=io.StringIO())))
        yield count("verify", lambda: verify(VerifySettings(cache=location), SILENT))
        yield count("open", lambda: open_cache(location))
        cache = open_cache(location)
        yield count("one row", lambda: cache.read_rows(0, range(5, 6)))
        yield count("another block", lambda: cache.read_rows(1, cache.blocks.rows(2)))


def rates(folder: Path) -> Iterator[tuple[str, float]]:
    """Rates from the late server over those from the disk."""
    with late_server(folder):
        near, far = open_cache(folder / "large.zarr"), open_cache("s3://late/large.zarr")
        for name, read in (("block by block", by_block), ("eight at once", at_once), ("whole view", whole)):
            taken = np.array([[seconds(read, cache) for cache in (near, far)] for _ in range(ROUNDS)])
            local, remote = np.median(taken, axis=0)
            yield name, float(local / remote)


def by_block(cache: Cache) -> None:
    for block in range(len(cache.blocks)):
        cache.read_rows(1, cache.blocks.rows(block))


def at_once(cache: Cache) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda block: cache.read_rows(1, cache.blocks.rows(block)), range(len(cache.blocks))))


def whole(cache: Cache) -> None:
    cache.read_page(1)


def seconds(read: Callable[[Cache], None], cache: Cache) -> float:
    began = time.perf_counter()
    read(cache)
    return time.perf_counter() - began


@contextmanager
def late_server(folder: Path) -> Iterator[None]:
    """A process that serves a folder as the bucket ``late``, named in the environment."""
    port = free_port()
    named = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.store_requests", str(folder), str(port)]
    with mock.patch.dict(os.environ, named), subprocess.Popen(command) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/late/large.zarr/zarr.json")
            yield
        finally:
            server.terminate()


def wait_for(url: str, limit_s: float = 60.0) -> None:
    """Until something answers there; :class:`TimeoutError` where nothing did in time."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            httpx2.get(url)
            return
        except httpx2.TransportError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{url} did not answer within {limit_s:g} s: {error}") from error
        time.sleep(0.1)


def serve(folder: Path, port: int) -> None:
    """GET of the files below a folder, whole or a range, each ``LATENCY_S`` late."""
    import uvicorn

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await asyncio.sleep(LATENCY_S)
        file = folder / scope["path"].removeprefix("/late/")
        wanted = dict(scope["headers"]).get(b"range", b"").decode().removeprefix("bytes=")
        status, body, headers = answer(file, wanted)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(application, host="127.0.0.1", port=port, log_level="error")


def answer(file: Path, wanted: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers of a GET, as S3 answers it."""
    if not file.is_file():
        return 404, b"<Error><Code>NoSuchKey</Code></Error>", []
    data = file.read_bytes()
    named = {"ETag": f'"{md5(data).hexdigest()}"', "Last-Modified": formatdate(0, usegmt=True)}
    status = 200
    if wanted:
        first, last = (int(number) for number in wanted.split("-"))
        named["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        status, data = 206, data[first : last + 1]
    named["Content-Length"] = str(len(data))
    return status, data, [(name.encode(), value.encode()) for name, value in named.items()]


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 1 else main()
