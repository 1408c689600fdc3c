"""A cache behind a logit server: patient requests, and bytes that are checked before they are believed."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
from numpy.typing import NDArray

from cache_builder.console.environment import is_loopback, proxy_for
from cache_builder.format import ConfigError, CorruptCacheError, Manifest, ServerError
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import Part
from cache_builder.format.content_digest import matches
from cache_builder.format.manifest import array_digest, parse_manifest
from cache_builder.format.positions import Positions
from cache_builder.format.wire import (
    CACHES_PATH,
    COUNT_TYPE,
    COUNTED,
    DIGEST_HEADER,
    EXAMPLE_URL,
    ID_HEADER,
    records_type,
    rows_body,
)
from trainer.teacher.patience import Patience
from trainer.teacher.shared_parts import SharedParts

RECORDS_PER_REQUEST = 16_384
"""Records asked for at once: one request stays small enough to be repeated without regret."""
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
# What a server that starts, drains, is overloaded or has lost its disk for a moment may answer.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}


class RemoteSource:
    """One cache of one server. Every method may be called from several threads.

    Requests that fail on the way, or find the server starting, overloaded or gone, or come back damaged, are
    repeated with exponential backoff and jitter for ``patience_s`` seconds. An answer for another cache_id,
    a refusal and a damaged tile end it at once. All of these raise :class:`ServerError`, a damaged tile
    :class:`CorruptCacheError`. This machine itself is never asked through a proxy.
    """

    def __init__(self, url: str, token: str | None, patience_s: float) -> None:
        self.location = url.rstrip("/")
        self._patience_s = patience_s
        self._closed = threading.Event()
        self._cache_id: str | None = None
        self._base = self.location
        """What paths are appended to."""
        # As it is: checksums are of the bytes that are sent.
        headers = {"Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {_sendable(token)}"
        self._proxy = proxy_for(self.location)
        is_here = is_loopback(urlsplit(self.location).hostname or "")
        self._client = httpx2.Client(headers=headers, timeout=_TIMEOUT, trust_env=not is_here)
        self._manifest: Manifest | None = None
        self._positions: Positions | None = None
        self._shared: SharedParts | None = None
        self._body: dict[str, Any] = {}

    def manifest(self) -> Manifest:
        """The manifest. Its cache_id is the only one accepted from then on."""
        if self._manifest is None:
            response = self._request("GET", "")
            try:
                self._body = response.json()
            except ValueError as error:
                raise ServerError(f"{self.location} did not answer with a manifest: {error}") from error
            self._manifest = parse_manifest(self._body, where=self.location)
            self._cache_id = self._manifest.completed_id
            self._check_identity(response)
            self._base = self._by_id(self._cache_id)
            if SharedParts.worth_keeping(self._manifest):
                self._shared = SharedParts(self._manifest, self._shared_records)
        return self._manifest

    def _by_id(self, cache_id: str) -> str:
        """The cache's URL by its id: a server goes on with the cache of this run when it was extended.

        The URL as it was given, where that has not the form of a server's.
        """
        before, path, name = self.location.rpartition(f"{CACHES_PATH}/")
        return f"{before}{path}{cache_id}" if path and name and "/" not in name else self.location

    def names(self) -> ClassNames:
        """What the classes are called."""
        return ClassNames.read(self.manifest(), self._body, self.array)

    def array(self, path: str) -> NDArray[Any]:
        """One array of the manifest's ``digests``, checked against its digest, or ``samples/digest``."""
        content = self._request("GET", f"/arrays/{path}").content
        try:
            array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        except ValueError as error:
            raise ServerError(f"{self.location}/arrays/{path} is not an array: {error}") from error
        expected = self.manifest().digests.get(path)
        if expected is not None and array_digest(array) != expected:
            raise ServerError(f"{self.location}/arrays/{path} does not match its digest in the manifest")
        return array

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of the given rows, in their order."""
        if self._shared is None:
            return self._records(view, rows)
        return np.concatenate([self._shared.of(view, rows), self._records(view, rows, Part.OWN)], axis=1)

    def _shared_records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(rows) == self.manifest().data.samples:
            return self._page(view, Part.SHARED)
        return self._records(view, rows, Part.SHARED)

    def _records(self, view: int, rows: NDArray[np.int64], part: Part = Part.WHOLE) -> NDArray[np.uint8]:
        counts = self.positions().counts(rows)
        found = [self._requested(view, rows[some], counts[some], part) for some in _requests(counts)]
        return np.concatenate(found) if len(found) != 1 else found[0]

    def page(self, view: int) -> NDArray[np.uint8]:
        """All records of a view, asked for in slices: what has arrived is not asked for again."""
        if self._shared is None:
            return self._page(view)
        rows = np.arange(self.manifest().data.samples)
        return np.concatenate([self._shared.of(view, rows), self._page(view, Part.OWN)], axis=1)

    def _page(self, view: int, part: Part = Part.WHOLE) -> NDArray[np.uint8]:
        counts = self.positions().counts(range(self.manifest().data.samples))
        page = np.empty((int(counts.sum()), self._part_bytes(part)), np.uint8)
        filled = 0
        for some in _requests(counts):
            params = {"start": some.start, "stop": some.stop} | _part_query(part)
            response = self._request("GET", f"/views/{view}/records", params=params)
            records = self._as_records(response, counts[some], part)
            page[filled : filled + len(records)] = records
            filled += len(records)
        return page

    def positions(self) -> Positions:
        """Which positions the rows own."""
        if self._positions is None:
            self._positions = Positions.read(self.manifest(), self.array)
        return self._positions

    def close(self) -> None:
        """End waiting requests and drop the connections."""
        self._closed.set()
        self._client.close()

    def _part_bytes(self, part: Part) -> int:
        return self.manifest().codec.layout.part(part).record_bytes

    def _requested(
        self, view: int, rows: NDArray[np.int64], counts: NDArray[np.int64], part: Part
    ) -> NDArray[np.uint8]:
        media_type, body = rows_body(rows)
        response = self._request(
            "POST",
            "/records",
            params={"view": view} | _part_query(part),
            content=body,
            headers={"Content-Type": media_type, "Accept": records_type(self.manifest())},
        )
        return self._as_records(response, counts, part)

    def _as_records(
        self, response: httpx2.Response, counts: NDArray[np.int64], part: Part
    ) -> NDArray[np.uint8]:
        """The records of rows that have so many each."""
        content, count, nbytes = response.content, int(counts.sum()), self._part_bytes(part)
        is_counted = records_type(self.manifest()) == COUNTED
        prefix = counts.astype(COUNT_TYPE).tobytes() if is_counted else b""
        if len(content) != len(prefix) + count * nbytes or not content.startswith(prefix):
            raise ServerError(
                f"{response.url} answered {len(content)} bytes for {count} records of {nbytes} "
                f"bytes{' after their counts' if is_counted else ''}: does a proxy change the answers?"
            )
        # A bytearray makes the array writable: torch warns about others.
        records = np.frombuffer(bytearray(content), np.uint8, offset=len(prefix))
        return records.reshape(count, nbytes)

    def _request(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        """Send until there is an answer worth having; raise what waiting cannot mend."""
        waiting = Patience(self.location, self._patience_s, self._closed)
        while True:
            retry_after = None
            try:
                response = self._client.request(method, self._base + path, **arguments)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                raise ConfigError(f"{self.location} is not a URL: {error}") from error
            except httpx2.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                self._check_identity(response)
                if response.status_code == HTTPStatus.NOT_FOUND and self._base != self.location:
                    # A server that was started anew knows no former ids, and proxies may know names alone.
                    self._base = self.location
                    continue
                if response.status_code != HTTPStatus.OK:
                    problem = self._refuse_unless_passing(response)
                elif matches(response.content, response.headers.get(DIGEST_HEADER)) is False:
                    problem = "the answer is damaged: its bytes are not those that its checksum was made of"
                else:
                    waiting.over()
                    return response
                retry_after = response.headers.get("Retry-After")
            waiting.wait(problem + self._way(), retry_after)

    def _way(self) -> str:
        """The proxy that was asked in the server's place, where the environment names one."""
        if self._proxy is None:
            return ""
        return (
            f" (asked through the proxy {self._proxy} of the environment; to go without it, add the server's "
            "host to no_proxy)"
        )

    def _check_identity(self, response: httpx2.Response) -> None:
        found = response.headers.get(ID_HEADER)
        if found is None:
            if response.status_code == HTTPStatus.OK:
                raise ServerError(
                    f"{response.url} answered without {ID_HEADER}: this is not a cache of a kdcache server; "
                    f"the URL should look like {EXAMPLE_URL}{self._way()}"
                )
        elif self._cache_id is not None and found != self._cache_id:
            raise ServerError(
                f"{self.location} now serves cache {found}, this run began with {self._cache_id}: the cache "
                "was replaced; serve the old one again, or start a new run"
            )

    def _refuse_unless_passing(self, response: httpx2.Response) -> str:
        """What to say while waiting; raises for an answer that waiting will not change."""
        error, detail = _error_body(response)
        problem = f"HTTP {response.status_code} {detail}".strip()
        if error == CorruptCacheError.__name__:
            raise CorruptCacheError(f"{self.location}: {detail}")
        if response.status_code in _PASSING:
            return problem
        if response.status_code in _REFUSED:
            problem += "; set KDCACHE_TOKEN to a token of this server"
        if response.status_code == HTTPStatus.NOT_FOUND and self._cache_id is None:
            problem += f"; the URL should look like {EXAMPLE_URL}"
        raise ServerError(f"{response.url}: {problem}{self._way()}")


def _requests(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Rows of so many records each as slices of as many as one request asks for, of one row at least."""
    # A row without a record is a row of a request all the same.
    ends = np.cumsum(np.maximum(counts, 1))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + RECORDS_PER_REQUEST, side="right")))
        yield slice(start, stop)
        start = stop


def _part_query(part: Part) -> dict[str, Any]:
    """A query that says nothing of whole records: servers of earlier releases know no parts."""
    return {} if part is Part.WHOLE else {"part": part.value}


def _sendable(token: str) -> str:
    """The token without the line's end that a file leaves; :class:`ConfigError` where no header takes it."""
    token = token.strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            "the token (KDCACHE_TOKEN) holds characters that no HTTP header takes: it is made of visible "
            "ASCII characters, without spaces"
        )
    return token


def _error_body(response: httpx2.Response) -> tuple[str, str]:
    """The server's error name and sentence; empty where a proxy answered in its place."""
    try:
        body = response.json()
        return str(body["error"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return "", response.reason_phrase
