"""Requests to a logit server: pooled, patient, and checked before they are believed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from cache_builder.client.patience import Patience
from cache_builder.console.environment import is_loopback, proxy_for
from cache_builder.format.content_digest import matches
from cache_builder.format.errors import ConfigError, CorruptCacheError, ServerError
from cache_builder.format.wire import CACHES_PATH, DIGEST_HEADER, EXAMPLE_URL, ID_HEADER

TOKEN_VARIABLE = "KDCACHE_TOKEN"
PATIENCE_S = 120.0
DOCUMENT_BYTES = 256 * 2**20
"""More than any answer has that is no array and no record."""
_LEAST_BYTES_PER_S = 2**10
"""Of an answer, beside the time of patience: what comes more slowly does not end."""
_OF_CODING = {"content-encoding", "content-length", "transfer-encoding"}

_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
# What a server that starts, drains, is overloaded or has lost its disk for a moment may answer.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}
_UNKNOWN = "UnknownCacheError"
"""What a server calls the error of a cache that it does not serve."""
_SAID_LENGTH = 2000
"""Characters of a server's sentence that an error repeats."""
_GOOD = {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}


class Connection:
    """What is below one URL of one server. Every method may be called from several threads.

    Only requests that change nothing are sent, so any may be repeated: those that fail on the way, or find
    the server starting, overloaded or gone, or come back damaged, are, for ``patience_s`` seconds, with
    exponential backoff and jitter and not before ``Retry-After``. A refusal and an answer for another
    cache_id end it at once. All of these raise :class:`ServerError`, a damaged tile
    :class:`CorruptCacheError`.

    Proxies of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``) are used, but never for this
    machine itself; errors name the proxy, and an answer that is of no kdcache server.
    """

    def __init__(self, location: str, token: str | None = None, patience_s: float = PATIENCE_S) -> None:
        """``location``: the URL. ``token``: by default the environment's ``KDCACHE_TOKEN``."""
        self.location = location.rstrip("/")
        self.base = self.location
        """What paths are appended to."""
        self.patience_s = patience_s
        self.closed = threading.Event()
        self.cache_id: str | None = None
        """The only one that answers may be about, once it is known."""
        self.is_of_cache = False
        """Whether every answer must be about a cache."""
        # As it is: checksums are of the bytes that are sent.
        headers = {"Accept-Encoding": "identity"}
        token = token or os.environ.get(TOKEN_VARIABLE)
        if token:
            headers["Authorization"] = f"Bearer {_sendable(token)}"
        self._proxy = proxy_for(self.location)
        is_here = is_loopback(urlsplit(self.location).hostname or "")
        self._pool = httpx2.Client(headers=headers, timeout=_TIMEOUT, trust_env=not is_here)

    def below(self, path: str) -> Self:
        """What is below a path of this location, over the same connections."""
        other = object.__new__(type(self))
        location = self.location + path
        other.__dict__ |= self.__dict__ | {"location": location, "base": location, "cache_id": None}
        return other

    def begin_with(self, cache_id: str) -> None:
        """Take answers about this cache only, and ask for it by its id.

        A server goes on with it when the cache of the name was extended. By the name where the URL has not
        the form of a server's.
        """
        self.cache_id = cache_id
        before, path, name = self.location.rpartition(f"{CACHES_PATH}/")
        if path and name and "/" not in name:
            self.base = f"{before}{path}{cache_id}"

    def close(self) -> None:
        """End waiting requests and drop the connections."""
        self.closed.set()
        self._pool.close()

    def waiting(self) -> Patience:
        """The patience of one request."""
        return Patience(self.location, self.patience_s, self.closed)

    def request(
        self, method: str, path: str, *, most_bytes: int = DOCUMENT_BYTES, **arguments: Any
    ) -> httpx2.Response:
        """Send until there is an answer worth having; raise what waiting cannot mend.

        ``most_bytes``: what an answer has at most; a longer one is not read, and is an error.
        """
        waiting = self.waiting()
        while True:
            with self.problems(waiting):
                with self._pool.stream(method, self.base + path, **arguments) as coming:
                    response = self._whole(coming, most_bytes)
                if self._is_forgotten(response):
                    continue
                self.check(response)
                if matches(response.content, response.headers.get(DIGEST_HEADER)) is False:
                    raise Passing(DAMAGED)
                waiting.over()
                return response

    def once(self, path: str) -> httpx2.Response:
        """The answer to one GET, whatever it is; :class:`ServerError` where there is none."""
        try:
            with self._pool.stream("GET", self.location + path) as coming:
                return self._whole(coming, DOCUMENT_BYTES)
        except (httpx2.RequestError, Passing) as error:
            raise ServerError(f"{self.location}: {_named(error)}{self._way()}") from error

    @contextlib.contextmanager
    def stream(self, path: str, headers: dict[str, str], **arguments: Any) -> Iterator[httpx2.Response]:
        """An answer whose body is still to be read; what goes wrong is for :meth:`problems`."""
        url = self.base + path
        with self._pool.stream("GET", url, headers=headers, **arguments) as response:
            is_good = response.status_code in _GOOD
            yield response if is_good else self._whole(response, DOCUMENT_BYTES)

    def _whole(self, coming: httpx2.Response, most_bytes: int) -> httpx2.Response:
        """An answer with its body, which neither a broken server nor one that lies makes endless."""
        pieces, size = [], 0
        latest = time.monotonic() + max(self.patience_s, PATIENCE_S)
        for piece in coming.iter_bytes():
            size += len(piece)
            if size > most_bytes:
                raise ServerError(
                    f"{coming.url} answered more than {most_bytes:,} bytes, which no answer there has: does "
                    f"a proxy change the answers?{self._way()}"
                )
            if time.monotonic() > latest + size / _LEAST_BYTES_PER_S:
                raise Passing(f"the answer does not end: {size:,} bytes came in all that time")
            pieces.append(piece)
        # The bytes are decoded, so what told of their coding is left out.
        kept = [(name, value) for name, value in coming.headers.multi_items() if name not in _OF_CODING]
        return httpx2.Response(
            coming.status_code,
            headers=kept,
            content=b"".join(pieces),
            request=coming.request,
            extensions=coming.extensions,
        )

    @contextlib.contextmanager
    def problems(self, waiting: Patience) -> Iterator[None]:
        """Wait because of what went wrong inside, and raise what waiting cannot mend."""
        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise ConfigError(f"{self.location} is not a URL: {error}") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            waiting.wait(_named(error) + self._way())
        except Passing as problem:
            waiting.wait(str(problem) + self._way(), problem.retry_after)

    def check(self, response: httpx2.Response) -> None:
        """Raise for an answer that is not of the cache, not of a kdcache server, or an error."""
        self._check_identity(response)
        if response.status_code not in _GOOD:
            self._refuse(response)

    def _check_identity(self, response: httpx2.Response) -> None:
        found = response.headers.get(ID_HEADER)
        if found is None:
            if response.status_code in _GOOD and self.is_of_cache:
                raise ServerError(
                    f"{response.url} answered without {ID_HEADER}: this is not a cache of a kdcache server"
                    f"{_program(response)}; the URL should look like {EXAMPLE_URL}{self._way()}"
                )
        elif self.cache_id is not None and found != self.cache_id:
            raise ServerError(
                f"{self.location} now serves cache {found}, this run began with {self.cache_id}: the cache "
                "was replaced; serve the old one again, or start a new run"
            )

    def _is_forgotten(self, response: httpx2.Response) -> bool:
        """Whether the id says nothing to who answered, who is asked by the name from now on.

        A server that was started anew knows no former ids, and proxies may know names alone.
        """
        if response.status_code != HTTPStatus.NOT_FOUND or self.base == self.location:
            return False
        if _told(response)[0] not in (None, _UNKNOWN):
            return False
        self.base = self.location
        return True

    def _refuse(self, response: httpx2.Response) -> None:
        """Raise for an answer that is an error: :class:`Passing` where it may be another one later."""
        if self._is_forgotten(response):
            raise Passing("the server knows no cache of this id: it is asked by the name")
        error, detail = _told(response)
        problem = f"HTTP {response.status_code} {detail}".strip()
        if error is None:
            problem += f", which is no answer of a kdcache server{_program(response)}"
        if error == CorruptCacheError.__name__:
            raise CorruptCacheError(f"{self.location}: {detail}")
        if response.status_code in _PASSING:
            raise Passing(problem, response.headers.get("Retry-After"))
        if response.status_code in _REFUSED:
            problem += f"; set {TOKEN_VARIABLE} to a token of this server"
        if response.status_code == HTTPStatus.NOT_FOUND and self.cache_id is None:
            problem += f"; the URL should look like {EXAMPLE_URL}"
        raise ServerError(f"{response.url}: {problem}{self._way()}")

    def _way(self) -> str:
        """The proxy that was asked in the server's place, where the environment names one."""
        if self._proxy is None:
            return ""
        return (
            f" (asked through the proxy {self._proxy} of the environment; to go without it, add the server's "
            "host to no_proxy)"
        )


DAMAGED = "the answer is damaged: its bytes are not those that its checksum was made of"


class Passing(Exception):  # noqa: N818 - never seen outside: what is waited for is no error yet
    """Something that may be over when the request is repeated. ``retry_after``: what the server says."""

    def __init__(self, problem: str, retry_after: str | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _sendable(token: str) -> str:
    """The token without the line's end that a file leaves; :class:`ConfigError` where no header takes it."""
    token = token.strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            f"the token ({TOKEN_VARIABLE}) holds characters that no HTTP header takes: it is made of visible "
            "ASCII characters, without spaces"
        )
    return token


def _told(response: httpx2.Response) -> tuple[str | None, str]:
    """The class and the sentence of a server's error; None where somebody else answered in its place.

    The same two members stand in problem details (RFC 9457) and in the errors of earlier releases.
    """
    try:
        body = response.json()
        return str(body["error"]), _printable(str(body["detail"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, _printable(response.reason_phrase)


def _printable(text: str) -> str:
    """What another program said, as a terminal may show it."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:_SAID_LENGTH])
    return shown if len(text) <= _SAID_LENGTH else f"{shown}…"


def _program(response: httpx2.Response) -> str:
    """Who says to have answered: servers and proxies name themselves, a kdcache server does not."""
    named = response.headers.get("Via") or response.headers.get("Server")
    return f" ({_printable(named[:80])} answered)" if named else ""
