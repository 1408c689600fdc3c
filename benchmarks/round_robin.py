"""A small load balancer: every request goes to the next replica that is not known to be away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.trainer.servers import free_port

AWAY_S = 1.0
"""A replica that refused a connection is asked again after so long."""
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class RoundRobin:
    """An ASGI app before replicas at some URLs.

    It repeats nothing: a request that finds its replica gone is answered with 502, and an answer whose
    replica dies on the way is cut, so that the client's own patience is what a run depends on.
    """

    def __init__(self, replicas: list[str]) -> None:
        self._away_until = dict.fromkeys(replicas, 0.0)
        self._turn = 0
        self._client = httpx2.AsyncClient(timeout=60, trust_env=False)
        self.answered: Counter[str] = Counter()
        """Whole answers by replica."""
        self.refused = 0
        """Requests answered with 502."""
        self.cut = 0
        """Answers that ended before their length."""
        routes = [Route("/{path:path}", self._forward, methods=["GET", "HEAD", "POST"])]
        self.app = Starlette(routes=routes, lifespan=self._alive)

    @contextlib.asynccontextmanager
    async def _alive(self, _app: Starlette) -> AsyncIterator[None]:
        """Connections are closed by the loop that made them."""
        async with self._client:
            yield

    def _next(self) -> str:
        """The replica whose turn it is, passing over those that are away unless all are."""
        replicas = list(self._away_until)
        self._turn += 1
        order = [replicas[(self._turn + offset) % len(replicas)] for offset in range(len(replicas))]
        now = time.monotonic()
        return next((replica for replica in order if self._away_until[replica] <= now), order[0])

    async def _forward(self, request: Request) -> Response:
        replica = self._next()
        headers = [pair for pair in request.headers.raw if pair[0].decode() not in _OF_ONE_CONNECTION]
        target = replica + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = self._client.build_request(
            request.method, target, headers=headers, content=await request.body()
        )
        try:
            answer = await self._client.send(asked, stream=True)
        except httpx2.TransportError as error:
            self._away_until[replica] = time.monotonic() + AWAY_S
            self.refused += 1
            return PlainTextResponse(f"{replica}: {type(error).__name__}", 502)
        passed = {name: value for name, value in answer.headers.items() if name not in _OF_ONE_CONNECTION}
        body = self._relayed(replica, answer)
        return StreamingResponse(body, answer.status_code, passed, background=BackgroundTask(answer.aclose))

    async def _relayed(self, replica: str, answer: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for part in answer.aiter_raw():
                yield part
        except httpx2.TransportError:
            self.cut += 1
            raise
        self.answered[replica] += 1


@contextlib.contextmanager
def balanced(replicas: list[str]) -> Iterator[tuple[str, RoundRobin]]:
    """A running one, at the URL that comes first."""
    balancer = RoundRobin(replicas)
    port = free_port()
    config = uvicorn.Config(balancer.app, host="127.0.0.1", port=port, log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="round robin")
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", balancer
    finally:
        server.should_exit = True
        thread.join()
