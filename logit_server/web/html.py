"""Pages from templates, with the headers that keep a browser from running anything but our own files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from cache_builder.console.fidelity import megabytes

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A template filled with values; every value is text, unless a template says otherwise."""
    body = _environment().get_template(template).render(**values)
    # Names of files may hold bytes that are not UTF-8 (lone surrogates): shown as a question mark.
    content = body.encode("utf-8", "replace")
    headers = {"cache-control": "no-cache", "vary": "accept"}
    return Response(content, status, headers, "text/html; charset=utf-8")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "count": lambda value: f"{value:,}",
        "percent": percent,
        "bytes": megabytes,
        "segment": lambda text: quote(text, safe="", errors="surrogateescape"),
    }
    return found


def percent(share: float) -> str:
    """A share of one as people read it: more digits near the ends."""
    digits = 1 if 0.01 <= share <= 0.999 or share in (0, 1) else 2
    return f"{100 * share:.{digits}f} %"
