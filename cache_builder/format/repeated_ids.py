"""Is every sample id unique? Told by hashes, of which few are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.ids import DecimalIds, Ids

_AT_ONCE = 2**22
"""Hashes that are sorted together."""


def first_repeated(ids: Ids) -> int | None:
    """The first row whose id an earlier row has, None where every id is unique."""
    if isinstance(ids, DecimalIds):
        return None
    shared = [_repeated(part) for part in _in_parts(ids)]
    suspects = np.concatenate(shared)
    return _first_among(ids, suspects) if suspects.size else None


def _repeated(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ordered = np.sort(hashes)
    found: NDArray[np.uint64] = ordered[1:][ordered[1:] == ordered[:-1]]
    return found


def _first_among(ids: Ids, suspects: NDArray[np.uint64]) -> int | None:
    """As above; only ids with one of some hashes are looked at. Equal hashes are told apart by the bytes."""
    seen: set[bytes] = set()
    row = 0
    for block in ids.blocks():
        for place in np.flatnonzero(np.isin(block.hashes(), suspects)).tolist():
            raw = block.raw(place).tobytes()
            if raw in seen:
                return row + place
            seen.add(raw)
        row += len(block)
    return None


def _in_parts(ids: Ids) -> Iterator[NDArray[np.uint64]]:
    """The hashes of all ids, equal ones in one part: what is beyond one part lies in temporary files."""
    count = -(-len(ids) // _AT_ONCE)
    if count <= 1:
        yield np.concatenate([np.empty(0, np.uint64), *(block.hashes() for block in ids.blocks())])
        return
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in range(count)]
        for block in ids.blocks():
            hashes = block.hashes()
            owners = (hashes % np.uint64(count)).astype(np.int64)
            ordered = hashes[np.argsort(owners, kind="stable")]
            bounds = np.cumsum(np.bincount(owners, minlength=count))[:-1]
            for file, part in zip(files, np.split(ordered, bounds), strict=True):
                file.write(part.tobytes())
        for file in files:
            file.seek(0)
            yield np.frombuffer(file.read(), np.uint64)
