"""``Range`` requests (RFC 9110, 14): a part of a body whose bytes never change, so that downloads go on."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request

from logit_server.errors import RangeError
from logit_server.state import is_head

# One range: of several, which need a body of their own form, servers may answer with the whole.
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})")


class Selected(NamedTuple):
    """Which bytes of a body are sent, with what status and headers."""

    bytes: range
    status: int
    headers: dict[str, str]


def select(request: Request, total: int, tag: str) -> Selected:
    """The bytes of a body of ``total`` bytes that a request asks for: all of them without a range.

    A range goes with ``If-Range`` only where that names the body's entity tag. Raises :class:`RangeError`
    for one that begins beyond the end.
    """
    asked = _asked(request, tag)
    if asked is None:
        return Selected(range(total), 200, {"accept-ranges": "bytes", "content-length": str(total)})
    first, last = asked
    if first is None:
        chosen = range(max(0, total - (last or 0)), total)
    else:
        chosen = range(first, min(total, total if last is None else last + 1))
    if not chosen:
        raise RangeError(
            f"there are {total} bytes, and Range asks for none of them", {"content-range": f"bytes */{total}"}
        )
    return Selected(
        chosen,
        206,
        {
            "accept-ranges": "bytes",
            "content-length": str(len(chosen)),
            "content-range": f"bytes {chosen.start}-{chosen.stop - 1}/{total}",
        },
    )


def _asked(request: Request, tag: str) -> tuple[int | None, int | None] | None:
    """The first and the last byte of a range; without a first one, how many of the last. None: all bytes."""
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    # Of HEAD, Range means nothing (RFC 9110, 14.2).
    if found is None or is_head(request) or request.headers.get("if-range", tag) != tag:
        return None
    first, last = (int(number) if number else None for number in found.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return first, last
