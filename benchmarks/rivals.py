"""Servers to be measured against: a bare ASGI application, Arrow Flight, and Zarr read for each request.

Each runs in a process of its own and answers requests for the same rows of the same view with as many bytes.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
import zarr
from numpy.typing import NDArray
from pyarrow import flight
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.http_load import Load, Requests, http_load
from cache_builder.format import Cache, open_cache
from cache_builder.format.layout import record_arrays
from cache_builder.format.wire import RECORDS, ROW_TYPES, ROWS

PREBUILT = 64
"""Answers that the bare application sends in turn."""

Ready = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """A server under measurement: where it answers, which process it is, and who asks it."""

    base: str
    pid: int
    load: Load

    def processor_s(self) -> float:
        """Seconds of processor time so far, of all threads, to the nanosecond, where ps counts 10 ms."""
        # The kernel's number of a process's clock, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime((~self.pid << 3) | 2)


@contextlib.contextmanager
def rival(serve: Callable[..., None], *arguments: Any, load: Load = http_load) -> Iterator[Server]:
    """``serve(ready, *arguments)`` in a process of its own, where it calls ``ready`` with its base URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs.send, *arguments))
    process.start()
    theirs.close()  # or a process that dies at once would be waited for
    try:
        yield Server(ours.recv(), process.pid or 0, load)
    finally:
        process.terminate()
        process.join()


def serve_bare(ready: Ready, answer_bytes: int) -> None:
    """A bare application under uvicorn as it comes: httptools, uvloop, no log of requests."""
    bodies = itertools.cycle([os.urandom(answer_bytes) for _ in range(PREBUILT)])

    async def answer(_body: bytes) -> bytes:
        return next(bodies)

    _serve(ready, _application(answer))


def serve_zarr(ready: Ready, path: str, view: int) -> None:
    """Zarr under uvicorn, naively: the arrays are open, every request reads its rows from each of them."""
    cache = open_cache(path)
    columns = [zarr.open_array(path, path=spec.path, mode="r") for spec in record_arrays(cache.manifest)]

    async def answer(body: bytes) -> bytes:
        rows = np.frombuffer(body, ROW_TYPES[ROWS]).astype(np.int64)
        read = [np.ascontiguousarray(column.oindex[view, rows]) for column in columns]
        return np.concatenate([_as_bytes(column) for column in read], axis=1).tobytes()

    _serve(ready, _application(answer))


def serve_flight(ready: Ready, path: str, view: int) -> None:
    """Arrow Flight: the view in memory, the rows of a ticket taken from it and sent as one batch."""
    import pyarrow as pa

    records = _records(open_cache(path), view)
    kind = pa.binary(records.shape[1])
    column = pa.FixedSizeBinaryArray.from_buffers(kind, len(records), [None, pa.py_buffer(records)])
    schema = pa.schema([("record", kind)])

    class Records(flight.FlightServerBase):  # type: ignore[misc]
        def do_get(self, _context: Any, ticket: flight.Ticket) -> flight.RecordBatchStream:
            rows = pa.array(np.frombuffer(ticket.ticket, ROW_TYPES[ROWS]))
            batch = pa.record_batch([column.take(rows)], schema)
            return flight.RecordBatchStream(pa.Table.from_batches([batch]))

    server = Records("grpc://127.0.0.1:0")
    ready(f"grpc://127.0.0.1:{server.port}")
    server.serve()


def flight_load(base: str, requests: Requests, connections: int, count: int) -> list[float]:
    """As :func:`http_load`, with a Flight client in a thread for each connection."""
    share = -(-count // connections)
    # A pool of its own: clients of one process would share one connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    clients = [flight.connect(base, generic_options=options) for _ in range(connections)]
    for client in clients:
        client.do_get(flight.Ticket(requests.bodies[0])).read_all()

    def ask(client: flight.FlightClient) -> list[float]:
        taken = []
        for index in range(share):
            begun = time.perf_counter()
            client.do_get(flight.Ticket(requests.bodies[index % len(requests.bodies)])).read_all()
            taken.append(time.perf_counter() - begun)
        return taken

    with ThreadPoolExecutor(connections) as threads:
        taken = [second for part in threads.map(ask, clients) for second in part]
    for client in clients:
        client.close()
    return taken


def _records(cache: Cache, view: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(cache.read_page(view))


def _as_bytes(column: NDArray[Any]) -> NDArray[np.uint8]:
    return column.reshape(len(column), -1).view(np.uint8)


def _application(answer: Callable[[bytes], Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        content = await answer(body)
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", RECORDS.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


def _serve(ready: Ready, app: ASGIApp) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        ready(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            app, http="httptools", loop="uvloop", log_level="warning", access_log=False, lifespan="on"
        )
        uvicorn.Server(config).run(sockets=[listener])


async def _lifespan(receive: Receive, send: Send) -> None:
    while (kind := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{kind}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
