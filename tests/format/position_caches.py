"""A synthetic builder of caches whose samples have several positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.logits_writer import LogitsWriter
from cache_builder.format.manifest import GridPositions, Manifest, RaggedPositions
from cache_builder.format.writer import SampleTable
from tests.caches import bound, fit_basis, synthetic_manifest, synthetic_names

GRID = GridPositions(shape=(2, 3))
COUNTS_OF_ROWS = (4, 0, 1, 3, 2)
"""Positions of the rows of a ragged cache; two rows are a tile."""
RAGGED = RaggedPositions(block=5)


def write_positions(
    path: Path,
    kind: GridPositions | RaggedPositions,
    logits: NDArray[np.float32],
    counts: tuple[int, ...],
    *,
    at_once: int = 1000,
    fitted_to: NDArray[np.float32] | None = None,
) -> Manifest:
    """A cache of logits [V, positions of all rows, C]; ``counts`` of each row; a tile has two rows.

    ``at_once``: positions of a batch; ``fitted_to`` [n, C]: what the basis is fitted to, the logits if not
    given.
    """
    views, _, classes = logits.shape
    manifest = synthetic_manifest(
        views=views, rows=len(counts), classes=classes, top_k=3, rank=2, wide=1, tile_rows=2, name=kind.kind
    ).model_copy(update={"positions": kind})
    seen = logits.reshape(-1, classes) if fitted_to is None else fitted_to
    codec = bound(manifest.codec, fit_basis(seen, 2))
    ids = [f"{row}.txt" for row in range(len(counts))]
    writer = LogitsWriter(
        path,
        manifest,
        codec,
        SampleTable.from_ids(ids, None, synthetic_names(manifest)),
        np.arange(len(counts), dtype=np.uint64),
        counts=counts if kind.kind == "ragged" else None,
        pixels=np.zeros((1, 3, 8, 8), np.uint8),
    )
    for start in range(0, logits.shape[1], at_once):
        writer.add(logits[:, start : start + at_once])
    return writer.finish()
