"""HTTP/1.1 as uvicorn speaks it, with limits on what a client may send and on the time it may take."""

from __future__ import annotations

import asyncio
import functools
import math
from typing import Any, Literal, NamedTuple

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cache_builder.format import KDCacheError
from logit_server.admission import is_of_this_moment
from logit_server.at_once import AtOnce, Body, header_lines
from logit_server.connections import CONNECTIONS_KEY, Connections
from logit_server.early_refusals import (
    body_too_large,
    header_too_large,
    malformed,
    target_too_long,
    too_many_connections,
    unknown_coding,
    upgrade_with_body,
)
from logit_server.errors import OverloadedError, SlowClientError
from logit_server.page_headers import ON_ALL
from logit_server.problems import problem_response
from logit_server.refusal_reasons import SLOW_READER
from logit_server.request_ids import request_id_of
from logit_server.transport import HeldFlow, Unread, break_off

_PIECE_BYTES = 2**14
"""What is parsed in one go: a few hundred of the smallest requests."""
_MAX_PIPELINED = 32
"""Requests of a connection that wait for the one before; what comes after them is not parsed yet."""
_LINGER_S = 5.0
"""Seconds that the rest of a refused request is taken and thrown away. If the connection were closed with
bytes unread, the client's system would throw the answer away."""
_FIELD_BYTES = 4
"""Of a header field, beside its name and its value: a colon, a space and the end of the line."""
_FRAME_BYTES = 16
"""For each byte of a body that comes in chunks: what a chunk of one byte takes, and some more."""
_KEPT_HEAD_BYTES = 4096
"""Of a header that is kept for the next request; programs that train send less than a tenth."""
_END_OF_HEADER = b"\r\n\r\n"

Phase = Literal["between", "header", "body", "refused"]
"""What a connection reads: nothing of a request yet, its header, its body, or what is thrown away."""


class _Answered(NamedTuple):
    """A request that was answered at once."""

    head: bytes
    """From its first byte to the end of its header."""
    size: int
    """Of its header and its body, in bytes."""
    answer: AtOnce


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    It is refused as soon as a limit is passed: the error is answered like every other one, after the
    answers that are still under way, and the connection is closed. The deadlines are numbers that
    :class:`Connections` looks at, so that a request costs no timer.
    """

    flow: HeldFlow

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all: Connections = app_state[CONNECTIONS_KEY]
        self._limits = self._all.settings
        self._phase: Phase = "between"
        self._due = math.inf
        self._is_surplus = False
        self._refusal: KDCacheError | None = None
        self._unparsed = b""
        self._unfinished_bytes = 0
        self._header_bytes = 0
        self._declared_bytes = 0
        self._has_body = False
        self._body_bytes = 0
        self._held_bytes = 0
        self._unread = Unread()
        # Another application around ours has no such method: it is to see every request.
        self._at_once = getattr(self.app, "at_once", None)
        self._answer: AtOnce | None = None
        self._may_hold = False
        self._held: tuple[RequestResponseCycle, Any] | None = None
        self._answered_now = 0
        self._last: _Answered | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._due = self.loop.time() + self._limits.header_s
        self._is_surplus = not self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._all.remove(self)
        self._release()
        self._unparsed = b""
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection, or let its request be finished first: the server stops."""
        self._all.is_draining = True
        super().shutdown()

    def pause_writing(self) -> None:
        """Note that the client does not take what it is sent."""
        super().pause_writing()
        self._all.is_unread(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Note that the client goes on reading."""
        self._unread.forget()
        self._all.was_read(self)
        super().resume_writing()

    @property
    def peer(self) -> str:
        """The address of the client."""
        return self.client[0] if self.client else "unknown"

    # Parsing

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless enough requests wait already."""
        if self._phase == "refused" or (self._last is not None and self._answer_like_last(data, self._last)):
            return
        self._answered_now = 0
        is_idle = self._is_idle()
        if self._unparsed:
            self._unparsed += data
        elif len(data) <= _PIECE_BYTES and not self.pipeline:
            self._feed(data)
        else:
            self._parse(data)
        if self._held is not None:
            self._start_held()
        elif is_idle and self._answered_now == 1 and self._is_idle():
            self._last = self._answered(data)

    def _parse(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            if len(self.pipeline) >= _MAX_PIPELINED:
                self._unparsed = data[start:]
                self.flow.pause_reading()
                self.flow.is_held = True
                return
            self._feed(data[start : start + _PIECE_BYTES])
            if self._phase == "refused":
                return

    def _parse_rest(self) -> None:
        rest, self._unparsed = self._unparsed, b""
        self.flow.is_held = False
        if self._phase == "refused" or self.transport.is_closing():
            return
        if not self.pipeline:
            self.flow.resume_reading()
        self._parse(rest)
        if self._held is not None:
            self._start_held()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request is answered as if it had not asked; what follows it may be of another protocol.
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            limit = error.__context__
            self.refuse(limit if isinstance(limit, KDCacheError) else malformed(error))
        if self._phase in ("header", "body"):
            # A field is told when it is whole, and of chunks only what they hold: what never ends is in no
            # sum but this one.
            self._unfinished_bytes += len(data)
            framing = self._unfinished_bytes - _FRAME_BYTES * self._body_bytes
            if framing > self._limits.max_header_bytes + _PIECE_BYTES:
                self.refuse(header_too_large(self._limits))

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._phase = "header"
        self._due = self.loop.time() + self._limits.header_s
        self._unfinished_bytes = self._header_bytes = self._declared_bytes = self._body_bytes = 0
        self._has_body = False

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        super().on_url(url)
        if len(self.url) > self._limits.max_target_bytes:
            raise target_too_long(self._limits)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the header, or one that follows a body in chunks, which means nothing here."""
        self._header_bytes += len(name) + len(value) + _FIELD_BYTES
        if self._header_bytes + len(self.url) > self._limits.max_header_bytes:
            raise header_too_large(self._limits)
        if self._phase != "header":
            return
        super().on_header(name, value)
        if len(self.headers) > self._limits.max_headers:
            raise header_too_large(self._limits)
        name = self.headers[-1][0]
        if name == b"content-length":
            self._declared_bytes = int(value)
            self._has_body = self._declared_bytes > 0
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise unknown_coding(value)
            self._has_body = True

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its header alone refuses it."""
        self._check_size(self._declared_bytes)
        if self._has_body and self.parser.should_upgrade():
            raise upgrade_with_body()
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        if not self.url.startswith((b"/", b"*")):
            self._take_authority()
        if self._is_surplus and not is_of_this_moment(self.url.partition(b"?")[0].decode("latin-1")):
            raise too_many_connections(self._limits)
        self._all.works(self)
        self._may_hold = self._has_body and self._at_once is not None
        super().on_headers_complete()
        self._may_hold = False
        # A client that waits for "100 Continue" and gets a final answer may or may not send its body:
        # what comes next could not be told apart.
        if self._is_surplus or self.expect_100_continue:
            self.cycle.keep_alive = False
        if self._has_body:
            self._phase = "body"
            self._due = self.loop.time() + self._limits.body_s

    def _take_authority(self) -> None:
        """Put the host of a target that is a whole URL in the place of ``Host`` (RFC 9112, 3.2.2)."""
        target = httptools.parse_url(self.url)
        host = target.host or b""
        authority = b"[%b]" % host if b":" in host else host
        if target.port:
            authority += b":%d" % target.port
        # In place: the scope has this very list.
        self.headers[:] = [(name, authority if name == b"host" else value) for name, value in self.headers]

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        size = len(body)
        self._body_bytes += size
        if not self.cycle.response_complete:  # else nobody keeps it
            self._held_bytes += size
            self._all.hold(size)
        self._check_size(self._body_bytes)
        # Who sends a lot at first does not earn hours in which the rest may come.
        latest = self.loop.time() + self._limits.body_s
        self._due = min(self._due + size / self._limits.min_bytes_per_s, latest)
        if self.expect_100_continue:
            self.expect_100_continue = False
            self.cycle.keep_alive = self.parser.should_keep_alive() and not self._is_surplus
        super().on_body(body)

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_body_bytes:
            raise body_too_large(self._limits)

    def on_message_complete(self) -> None:
        """End the request."""
        super().on_message_complete()
        self._phase = "between"
        self._due = math.inf
        self.headers = []
        if self._held is not None:
            self._answer_held(self._held[0])
        elif self.cycle.response_complete:
            self._wait()

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start the application, or hold the request until its body has come, which may be at once."""
        if self._may_hold:  # not one that waited for the answer before it: its body may be there already
            self._held = cycle, app
        else:
            super()._start_asgi_task(cycle, functools.partial(self._run, cycle, app))

    def _start_held(self) -> None:
        assert self._held is not None
        (cycle, app), self._held = self._held, None
        super()._start_asgi_task(cycle, functools.partial(self._run, cycle, app))

    def _answer_held(self, cycle: RequestResponseCycle) -> None:
        """Answer a request without a task of its own, which costs as much as finding the records."""
        is_ordinary = not cycle.keep_alive or self._answered_now >= _MAX_PIPELINED
        self._answer = None if is_ordinary or self._at_once is None else self._at_once(cycle.scope)
        if self._answer is None or not self._write_at_once(self._answer, cycle.body):
            self._start_held()
            return
        self._held = None
        self._answered_now += 1
        cycle.response_started = cycle.response_complete = True
        self.on_response_complete()

    def _answer_like_last(self, data: bytes, last: _Answered) -> bool:
        """Answer a request whose header is, byte for byte, that of the one before: it need not be parsed.

        Requests of one client differ in their bodies alone, and parsing takes as long as all the rest.
        """
        if len(data) != last.size or not data.startswith(last.head) or not self._is_idle():
            return False
        if not self._write_at_once(last.answer, memoryview(data)[len(last.head) :]):
            return False
        self.server_state.total_requests += 1
        self._all.works(self)
        self._wait()
        return True

    def _is_idle(self) -> bool:
        """Whether the next byte begins a request, and all before it are answered."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self._phase == "between" and not self._unparsed

    def _answered(self, data: bytes) -> _Answered | None:
        """The request that ``data`` is, where it is its header, then its body, and nothing else."""
        size = len(data) - self._declared_bytes
        if size > _KEPT_HEAD_BYTES:
            return None  # of very many connections, long ones would take gigabytes
        is_that = data.find(_END_OF_HEADER) + len(_END_OF_HEADER) == size and data[size:] == self.cycle.body
        return _Answered(data[:size], len(data), self._answer) if is_that and self._answer else None

    def _write_at_once(self, answer: AtOnce, body: Body) -> bool:
        """Answer the body of a request if that can be done at once; gives whether it was."""
        if self.flow.write_paused or self.transport.is_closing():
            return False
        found = answer(body)
        if found is None:
            return False
        self.transport.writelines((self._head(200, found.lines), found.body))
        return True

    def _head(self, status: int, lines: bytes) -> bytes:
        always = header_lines(self.server_state.default_headers)
        return b"%b%b%b\r\n" % (STATUS_LINE[status], always, lines)

    async def _run(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async def send_if_there(message: Message) -> None:
            try:
                await send(message)
            except RuntimeError:
                if not self.transport.is_closing():
                    raise
                # The connection ended while uvicorn waited for the client to read. uvloop raises then, but a
                # client that goes away is no error.
                cycle.disconnected = True

        try:
            await app(scope, receive, send_if_there)
        except asyncio.CancelledError:
            # The time to drain is over. uvicorn says so, and would add a traceback for each request.
            cycle.disconnected = True
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Answer the next request, or wait for one."""
        self.server_state.total_requests += 1
        self._release()
        if self.transport.is_closing():
            return
        if self._unparsed:
            self.loop.call_soon(self._parse_rest)
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._phase == "between":
            self._wait()

    def _wait(self) -> None:
        self._due = self.loop.time() + self._limits.keep_alive_s
        self._all.waits(self)

    def _release(self) -> None:
        self._all.release(self._held_bytes)
        self._held_bytes = 0

    # Refusing

    def refuse(self, error: KDCacheError) -> None:
        """Answer a request with an error in place of the application, and close the connection."""
        if self._refusal is not None or self.transport.is_closing():
            return
        was_body, self._phase, self._due = self._phase == "body", "refused", math.inf
        self._refusal = error
        self._all.works(self)
        cycle = self.cycle
        if was_body and cycle.response_started:
            # The application did not wait for the body: its answer stands, and is the last one.
            cycle.keep_alive = False
            if cycle.response_complete:
                self._linger()
        elif was_body and self.pipeline:
            self.pipeline.popleft()
        elif was_body:
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer_refusal(error)
        elif cycle is None or cycle.response_complete:
            self._answer_refusal(error)

    def _answer_refusal(self, error: KDCacheError) -> None:
        self._write_refusal(error)
        self._linger()

    def _write_refusal(self, error: KDCacheError) -> None:
        request_id = request_id_of(self.headers or ())
        self._all.refusals.before_routes(error, request_id.decode(), self.peer)
        response = problem_response(error, request_id.decode())
        stamps = [(b"x-request-id", request_id), *ON_ALL, (b"connection", b"close")]
        head = self._head(response.status_code, header_lines((*response.raw_headers, *stamps)))
        body = b"" if self.parser.get_method() == b"HEAD" else bytes(response.body)
        self.transport.write(head + body)

    def _linger(self) -> None:
        self._release()
        self._due = self.loop.time() + _LINGER_S
        self._all.waits(self)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def give_way(self) -> None:
        """Close the connection, which waits for a request, because another one needs its place."""
        if self._phase == "header":
            error = OverloadedError("this worker has no place for slow clients; try again", "connections")
            self._write_refusal(error)
        self.transport.close()

    def abort(self) -> None:
        """Close the connection at once, and forget what has not been sent."""
        break_off(self.transport)

    # Time

    def check_time(self, now: float) -> None:
        """End the connection if its client is late at ``now``, in seconds of the event loop's clock."""
        limits = self._limits
        per_s = int(limits.min_bytes_per_s)
        if self._unread.is_slow(self.transport, now, read_s=limits.read_s, bytes_per_s=per_s):
            self._all.refusals.note(SLOW_READER, "it does not take its answer", self.peer)
            self.abort()
            return
        if self.flow.read_paused and self._phase in ("header", "body"):
            # The client waits for this server, not the other way round.
            self._due = now + limits.body_s
        if now < self._due:
            return
        if self._phase == "header":
            self.refuse(SlowClientError(f"the header was not there after {self._limits.header_s:g} s"))
        elif self._phase == "body":
            self.refuse(
                SlowClientError(f"of the body, {self._body_bytes:,} bytes had come when its time was over")
            )
        elif self._phase == "between":
            self.transport.close()
        else:
            self.transport.abort()
