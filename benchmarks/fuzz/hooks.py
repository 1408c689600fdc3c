"""What schemathesis is told about this server: bodies of rows, places that exist, and a count of the answers.

Loaded by ``benchmarks.fuzz_server`` in the process of schemathesis (``SCHEMATHESIS_HOOKS``).
"""

from __future__ import annotations

import atexit
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

from benchmarks.fuzz_server import COUNTS_VARIABLE, PLACES_VARIABLE
from cache_builder.format.wire import ROWS, WIDE_ROWS

_SHARE = 0.8
"""Of the requests, those that ask for something that exists."""

# JSON: per name of a path parameter or a key of the query, values that exist.
_places: dict[str, list[str]] = json.loads(os.environ.get(PLACES_VARIABLE, "{}"))
_chance = random.Random(7)
_counts: Counter[str] = Counter()

_rows = st.lists(st.integers(0, 99), max_size=40).map(
    lambda rows: b"".join(r.to_bytes(4, "little") for r in rows)
)
schemathesis.openapi.media_type(ROWS, st.one_of(_rows, st.binary(max_size=200)))
schemathesis.openapi.media_type(WIDE_ROWS, st.binary(max_size=200))


@schemathesis.serializer(ROWS, WIDE_ROWS)
def _as_bytes(_ctx: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


@schemathesis.hook
def map_path_parameters(_ctx: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Put what exists in the place of what was drawn, most of the time."""
    return _existing(path_parameters)


@schemathesis.hook
def map_query(_ctx: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Likewise in the query."""
    return _existing(query)


def _existing(drawn: dict[str, Any] | None) -> dict[str, Any] | None:
    for name in drawn or ():
        if name in _places and _chance.random() < _SHARE:
            drawn[name] = _chance.choice(_places[name])  # type: ignore[index]
    return drawn


@schemathesis.hook
def after_call(_ctx: Any, _case: Any, response: Any) -> None:
    """Count an answer."""
    _counts[str(response.status_code)] += 1


@atexit.register
def _write() -> None:
    if COUNTS_VARIABLE in os.environ:
        Path(os.environ[COUNTS_VARIABLE]).write_text(json.dumps(_counts))
