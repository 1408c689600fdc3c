"""JSON bodies that ask for records, read piece by piece: the first thing that is wrong ends the reading."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from logit_server.errors import RequestError, TooLargeError, shorten

_PIECE_BYTES = 2**16
"""What is parsed in one go, about a millisecond: the event loop waits no longer for the interpreter's lock.
No item and no key is longer."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_SPACE = rb"[ \t\r\n]*+"
_ITEM = rb"(?:" + _STRING + rb'|[^ \t\r\n",\[\]{}]++)'
_START = re.compile(_SPACE + rb"\{" + _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"\[")
_ITEMS = re.compile(rb"(?:" + _SPACE + _ITEM + _SPACE + rb",)*+", re.DOTALL)
_LAST = re.compile(_SPACE + rb"(?:" + _ITEM + _SPACE + rb")?+\]", re.DOTALL)
_END = re.compile(_SPACE + rb"\}" + _SPACE + rb"\Z")
_NEXT_KEY = re.compile(_SPACE + rb"," + _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":")


class IdsRequest(BaseModel):
    """Which records, by sample id, in the order of the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[str] = Field(examples=[["cat/1.jpg", "dog/7.jpg"]])


class RowsRequest(BaseModel):
    """Which records, by row, in the order of the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rows: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(examples=[[0, 17]])


SCHEMA = {"oneOf": [IdsRequest.model_json_schema(), RowsRequest.model_json_schema()]}
"""What a body may be, for the OpenAPI document."""
EXAMPLES = {
    "rows": {"summary": "By row", "value": {"rows": [0, 17]}},
    "ids": {"summary": "By sample id", "value": {"ids": ["cat/1.jpg", "dog/7.jpg"]}},
}
"""Bodies as they may be, likewise."""

_LISTS: dict[str, TypeAdapter[list[Any]]] = {
    "ids": TypeAdapter(Annotated[list[str], Field(fail_fast=True)]),
    "rows": TypeAdapter(Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(fail_fast=True)]),
}
_KEY: TypeAdapter[str] = TypeAdapter(str)


@dataclass(frozen=True)
class RecordRequest:
    """Which records: by sample id or by row, in the order of the answer."""

    ids: list[str] | None = None
    rows: list[int] | None = None


def is_large(body: bytes) -> bool:
    """Whether a body takes long to parse: more than one piece."""
    return len(body) > _PIECE_BYTES


def parse_record_request(body: bytes, max_ids: int) -> RecordRequest:
    """A JSON body as a :class:`RecordRequest`; :class:`RequestError` says what is wrong with it.

    Raises :class:`TooLargeError` for more than ``max_ids`` items, as soon as so many have been read.
    """
    start = _START.match(body, 0, _PIECE_BYTES)
    if start is None:
        raise _wrong("it must begin with one of the two", body, 0)
    key = _key(start[1])
    if key not in _LISTS:
        raise _refused(f"it has the key {shorten(key)}")
    pieces, end = _read_items(body, start.end(), key, max_ids)
    _check_end(body, end, key)
    return RecordRequest(**{key: list(chain.from_iterable(pieces))})


def _read_items(body: bytes, at: int, key: str, max_ids: int) -> tuple[list[list[Any]], int]:
    """The items of a list that begins at byte ``at``, in pieces, and where it ends."""
    pieces: list[list[Any]] = []
    count = 0
    while True:
        stop = at + _PIECE_BYTES
        end = _end(_ITEMS, body, at, stop)
        last = _LAST.match(body, end, stop)
        if end == at and last is None:
            raise _wrong(f"its {key} must be a list, of items of at most {_PIECE_BYTES:,} bytes", body, at)
        # Without the comma or the bracket that the items end with; a comma before the bracket is an error.
        items = body[at : last.end() - 1] if last else body[at : end - 1]
        if pieces and not items.strip():
            raise _wrong("an item must follow a comma", body, at)
        pieces.append(_validated(items, key, count))
        count += len(pieces[-1])
        if count > max_ids:
            raise TooLargeError(
                f"the list of {key} has more items than this server answers at once: at most {max_ids:,}; "
                "send less"
            )
        if last is not None:
            return pieces, last.end()
        at = end


def _end(pattern: re.Pattern[bytes], body: bytes, at: int, stop: int) -> int:
    found = pattern.match(body, at, stop)
    return at if found is None else found.end()


def _validated(items: bytes, key: str, before: int) -> list[Any]:
    """Some items, of which ``before`` others come first; :class:`RequestError` names the first wrong one."""
    try:
        return _LISTS[key].validate_json(b"[" + items + b"]", strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        places = [str(before + part) if isinstance(part, int) else part for part in first["loc"]]
        what = f"{'.'.join([key, *places])} is {shorten(first['input'])}: " if places else ""
        raise _refused(f"{what}{first['msg']}") from error


def _check_end(body: bytes, at: int, key: str) -> None:
    """Raise :class:`RequestError` for what follows the list of ``key``, which ends before byte ``at``."""
    if _END.match(body, at):
        return
    following = _NEXT_KEY.match(body, at, at + _PIECE_BYTES)
    if following is None:
        raise _wrong("it must end after the list", body, at)
    other = _key(following[1])
    if other == key:
        raise RequestError(
            f"the body has the key {shorten(key)} more than once; give it once, with all of its values in "
            "one list"
        )
    if other in _LISTS:
        raise _refused('give either "ids" or "rows"')
    raise _refused(f"it has the key {shorten(other)}")


def _key(text: bytes) -> str:
    try:
        return _KEY.validate_json(text)
    except ValidationError as error:
        raise _refused(f"its key {shorten(text)} is no text") from error


def _wrong(expected: str, body: bytes, at: int) -> RequestError:
    return _refused(f"{expected}; at byte {at} stands {shorten(body[at : at + 100])}")


def _refused(why: str) -> RequestError:
    return RequestError(f'the body must be {{"ids": [...]}} or {{"rows": [...]}}: {why}')
