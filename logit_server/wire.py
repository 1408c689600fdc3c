"""Requests as they come over the wire: bodies, queries, accepted media types, entity tags."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_plus, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from cache_builder.format.codecs import Part
from cache_builder.format.wire import ROW_TYPES, ROWS
from logit_server.at_once import Body
from logit_server.errors import MediaTypeError, NotAcceptableError, RequestError, TooLargeError, shorten

# Of an unknown key: what is longer resembles no name.
_KEY_LENGTH = 60
_INDEX = np.dtype("<i8")


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body; :class:`TooLargeError` as soon as more than ``limit`` bytes have come."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        _check_size(len(message["body"]), limit)
        return bytes(message["body"])
    body = bytearray()
    while message["type"] == "http.request":
        body += message["body"]
        _check_size(len(body), limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise ClientDisconnect


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(
            f"the body has more than {limit:,} bytes, the limit of this server; send less at once"
        )


def parse_rows(body: Body, max_ids: int, body_is: str = ROWS) -> NDArray[np.integer[Any]]:
    """A body of raw rows, of one of the types of ``ROW_TYPES``, as an array [n], a view of the bytes."""
    kind = ROW_TYPES[body_is]
    if len(body) % kind.itemsize:
        raise RequestError(
            f"a body of type {body_is} is little-endian {kind.name}, so its length is a multiple of "
            f"{kind.itemsize}; got {len(body)} bytes"
        )
    rows = np.frombuffer(body, kind)
    check_count(len(rows), max_ids)
    return rows if kind.itemsize < _INDEX.itemsize else _as_indices(rows)


def _as_indices(rows: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """The same bytes as what arrays are indexed with; :class:`RequestError` for what these cannot hold."""
    if rows.size and rows.max() > np.iinfo(_INDEX).max:
        raise RequestError(f"row {rows.max()} is out of range: no cache has so many rows")
    return rows.view(_INDEX)


def check_count(count: int, limit: int) -> None:
    """Raise :class:`TooLargeError` for more than ``limit`` records."""
    if count > limit:
        raise TooLargeError(
            f"{count:,} records at once, this server answers with at most {limit:,}; send less"
        )


@lru_cache(maxsize=256)
def body_type(given: bytes, encoding: bytes, readable: tuple[str, ...]) -> str:
    """The media type of a body with these Content-Type and Content-Encoding, one of ``readable``.

    Raises :class:`MediaTypeError` for any other.
    """
    essence = given.decode("latin-1").partition(";")[0].strip().lower()
    if essence not in readable:
        found = f"is {shorten(given.decode('latin-1'))}" if given else "is missing"
        raise MediaTypeError(f"Content-Type {found}; this path reads {' or '.join(readable)}")
    if encoding.lower() not in (b"", b"identity"):
        raise MediaTypeError(
            f"Content-Encoding is {shorten(encoding.decode('latin-1'))}; send the body as it is"
        )
    return essence


@lru_cache(maxsize=256)
def answer_type(accept: bytes, offers: tuple[str, ...]) -> str:
    """The offer an Accept header (RFC 9110, 12.5.1) prefers, the first where it does not care.

    Raises :class:`NotAcceptableError` where it takes none of them.
    """
    ranges = dict(_parse_range(item) for item in accept.decode("latin-1").split(",") if item.strip())
    qualities = [_quality(offer, ranges) for offer in offers] if ranges else [1.0]
    best = max(qualities)
    if best <= 0:
        found = shorten(accept.decode("latin-1"))
        raise NotAcceptableError(f"Accept is {found}; this path answers with {' or '.join(offers)}")
    return offers[qualities.index(best)]


def check_accepted(request: Request, offer: str) -> None:
    """Raise :class:`NotAcceptableError` where the client does not take ``offer``."""
    accepted(request, (offer,))


def accepted(request: Request, offers: tuple[str, ...]) -> str:
    """The offer that the client prefers (see :func:`answer_type`)."""
    return answer_type(request.headers.get("accept", "").encode("latin-1"), offers)


def _parse_range(item: str) -> tuple[str, float]:
    essence, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return essence, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return essence, 0.0


def _quality(offer: str, ranges: dict[str, float]) -> float:
    # The most specific range that matches decides.
    candidates = (offer, offer.partition("/")[0] + "/*", "*/*")
    return next((ranges[candidate] for candidate in candidates if candidate in ranges), 0.0)


class Selection(NamedTuple):
    """What a query selects of the records of some rows."""

    view: int
    part: Part


@lru_cache(maxsize=1024)
def parse_selection(query: bytes) -> Selection:
    """``view`` and ``part`` of a raw query string: 0 and ``whole`` where they are not given.

    Unknown keys are refused: with a typo in the key every view would be view 0.
    """
    given = {"view": "0", "part": Part.WHOLE.value}
    found = parse_query(query)
    check_query_keys(found, given)
    view, part = (given | found).values()
    if not (view.isascii() and view.isdigit() and len(view) <= 9):
        raise RequestError(f"view is {shorten(view)}: it must be a whole number from 0")
    if part not in set(Part):
        raise RequestError(f"part is {shorten(part)}: it must be {', '.join(Part)}")
    return Selection(int(view), Part(part))


def check_query_keys(given: Iterable[str], known: Collection[str]) -> None:
    """Raise :class:`RequestError` for the first key that a path does not take; the near one is named."""
    unknown = next((key for key in given if key not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(unknown[:_KEY_LENGTH], known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    takes = f"this path takes {', '.join(known)}" if known else "this path takes none"
    raise RequestError(f"unknown query parameter {shorten(unknown)}{meant or f'; {takes}'}")


class QueryKeys(BaseModel):
    """The query of a path. Unknown keys are refused: with a typo every view would be view 0."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: dict[str, object]) -> dict[str, object]:
        check_query_keys(given, cls.model_fields)
        return given

    model_config = ConfigDict(extra="forbid")


async def no_query(request: Request) -> None:
    """Raise :class:`RequestError` where a path that takes no query is given one."""
    check_query_keys(request.query_params, ())


def parse_query(query: bytes) -> dict[str, str]:
    """The keys and values of a query string (application/x-www-form-urlencoded), exactly.

    The one parser of the server: every query passes it, and what reads it otherwise later reads the same.
    Raises :class:`RequestError` for a key that is given twice, since of two views one would be dropped, and
    for what is not UTF-8: with a replacement character in its place an id would be another one.
    """
    if not query:
        return {}
    pairs = [_decoded(pair).partition("=")[::2] for pair in query.split(b"&") if pair]
    found = {unquote_plus(key): unquote_plus(value) for key, value in pairs}
    if len(found) < len(pairs):
        twice, count = Counter(unquote_plus(key) for key, _ in pairs).most_common(1)[0]
        raise RequestError(f"query parameter {shorten(twice)} is given {count} times; give it once")
    return found


@lru_cache(maxsize=256)
def check_query(query: bytes) -> None:
    """Raise what :func:`parse_query` raises."""
    parse_query(query)


def _decoded(pair: bytes) -> str:
    """A part of a query, still escaped; :class:`RequestError` unless it is escaped UTF-8."""
    try:
        unquote_to_bytes(pair).decode()
        return pair.decode("ascii")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the query has {shorten(pair.decode('latin-1'))}: it must be UTF-8, with every byte beyond "
            "ASCII escaped"
        ) from error


def check_path(raw_path: bytes) -> None:
    """Raise :class:`HTTPException` 404 for a path that is not UTF-8: nothing has such a name.

    The server below puts replacement characters into it, with which it may be the name of something else.
    """
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError as error:
        raise HTTPException(404) from error


def entity_tag(*parts: object) -> str:
    """A strong entity tag of what names the answer: the cache_id and the selection."""
    return '"' + "-".join(str(part) for part in parts) + '"'


def is_fresh(request: Request, tag: str) -> bool:
    """Whether the client already has the answer with this entity tag (If-None-Match)."""
    return tag_is_among(request.headers.get("if-none-match", ""), tag)


def tag_is_among(known: str, tag: str) -> bool:
    """Whether an If-None-Match header names a strong tag: compared weakly, as RFC 9110, 13.1.2 says."""
    return any(item.strip().removeprefix("W/") in (tag, "*") for item in known.split(","))
