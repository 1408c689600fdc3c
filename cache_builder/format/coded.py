"""Fields whose blocks the codec codes itself, as the arrays that Zarr stores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.codecs import Codec
from cache_builder.format.layout import ArraySpec


def coded_blocks(codec: Codec[Any], spec: ArraySpec, column: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Packed digits [views, rows, count] of a tile as the bytes of its chunks [views, rows, item].

    A chunk is one block, whose bytes come one after the other from the first row on, and then zeros.
    """
    assert spec.coded is not None
    views, rows = column.shape[:2]
    stored = np.zeros((views, rows * spec.chunks[-1]), np.uint8)
    for view in range(views):
        block = codec.coded(spec.coded, np.ascontiguousarray(column[view]))
        stored[view, : len(block)] = np.frombuffer(block, np.uint8)
    return stored.reshape(views, rows, spec.chunks[-1])


def uncoded_block(codec: Codec[Any], spec: ArraySpec, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The packed digits [rows, count] of a block, from the rows [rows, item] of its chunk."""
    assert spec.coded is not None
    return codec.uncoded(spec.coded, np.ascontiguousarray(stored).tobytes(), len(stored))
