"""Damaging a store on purpose, and reading everything it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cache_builder.format import (
    CorruptCacheError,
    FormatError,
    IncompleteCacheError,
    open_cache,
)

REFUSALS = (CorruptCacheError, FormatError, IncompleteCacheError)

Contents = dict[str, object]


def contents(path: str | Path, *, allow_partial: bool = False) -> Contents:
    """Everything a reader can learn from a cache, in comparable form."""
    cache = open_cache(path, allow_partial=allow_partial)
    found: Contents = {
        "manifest": cache.manifest.model_dump(),
        "ids": list(cache.ids),
        "digests": cache.digests.tobytes(),
    }
    for header in sorted(cache.manifest.digests):
        array = cache.header_array(header)
        found[header] = (array.shape, array.dtype.str, array.tobytes())
    for view in range(cache.manifest.views.count):
        page = cache.read_page(view)
        found[f"page {view}"] = page.tobytes()
        found[f"logits {view}"] = cache.decode(page).tobytes()
    return found


def read_or_refuse(path: Path, *, allow_partial: bool = False) -> Contents | None:
    """The contents, or None when the reader refused; any other error is a bug and propagates."""
    try:
        return contents(path, allow_partial=allow_partial)
    except REFUSALS:
        return None


@contextmanager
def changed(file: Path, data: bytes | None) -> Iterator[None]:
    """The file holds ``data`` (or is gone, for None) inside the block, and its own bytes after it."""
    before = file.read_bytes()
    try:
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
        yield
    finally:
        file.write_bytes(before)


def flipped(data: bytes, bit: int) -> bytes:
    """The bytes with one bit inverted."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def files_of(path: Path) -> list[Path]:
    """Every file of a store that holds something."""
    return sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)


def pick_bits(rng: np.random.Generator, files: list[Path], per_file: int) -> Iterator[tuple[Path, int]]:
    """Random (file, bit) pairs: every file is hit, whatever its size."""
    for file in files:
        bits = 8 * file.stat().st_size
        for bit in rng.choice(bits, size=min(per_file, bits), replace=False):
            yield file, int(bit)
