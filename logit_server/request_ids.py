"""The id that every answer has: the client's own, where it sent a sane one."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable

_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PROCESS_ID = secrets.token_hex(4).encode()
_COUNT = itertools.count(1)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The ``X-Request-Id`` among lower-case ``headers``, or a new id."""
    return sane_request_id(headers) or new_request_id()


def sane_request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The ``X-Request-Id`` among lower-case ``headers``, if a sane one is there."""
    for key, value in headers:
        if key == b"x-request-id" and _SANE.fullmatch(value):
            return bytes(value)
    return None


def new_request_id() -> bytes:
    """An id that no other request of this run has."""
    return b"%b-%x" % (_PROCESS_ID, next(_COUNT))
