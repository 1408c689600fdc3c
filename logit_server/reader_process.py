"""A process that reads and decodes for a worker, whose event loop then never waits for the interpreter.

Its standard input is a socket. It takes one JSON object a line and answers each with a line and the bytes
that the line announces: ``{"sizes": [N, …]}``, or with ``{"error": CLASS}``. It ends with its input.
"""

from __future__ import annotations

import json
import os
import socket
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import open_cache
from cache_builder.format.codecs import Part
from logit_server.served_caches import ServedCache
from logit_server.storage import read_block


def main() -> None:
    """Answer until the input ends."""
    with socket.socket(fileno=os.dup(0)) as worker, worker.makefile("rb") as lines:
        for line in lines:
            head, arrays = answer(json.loads(line))
            worker.sendall(json.dumps(head).encode() + b"\n")
            for array in arrays:
                worker.sendall(array.reshape(-1).view(np.uint8).data)


def answer(wanted: dict[str, Any]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The line and the arrays of one answer."""
    try:
        found = _read(**wanted)
    except Exception as error:  # noqa: BLE001 - the worker tries it itself, and says what comes of it
        return {"error": type(error).__name__}, []
    if found is None:
        return {"error": "ReplacedCacheError"}, []
    return {"sizes": [array.nbytes for array in found]}, found


def _read(
    location: str, name: str, cache_id: str, block: tuple[int, int, str] | None
) -> list[NDArray[Any]] | None:
    """A block of records as (view, block, part), or the index of the ids; None where it is another cache."""
    served = _served(location, name, cache_id)
    if served.cache.manifest.cache_id != cache_id:
        _served.cache_clear()
        return None
    if block is None:
        return list(served.cache.ids.hash_index)
    view, number, part = block
    return [np.ascontiguousarray(read_block(served, view, number, Part(part)))]


@lru_cache(maxsize=128)
def _served(location: str, name: str, cache_id: str) -> ServedCache:
    return ServedCache(name, open_cache(location), cache_id)


if __name__ == "__main__":
    main()
