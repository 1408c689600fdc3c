"""Arrays that come block by block are digested and cut as whole ones are."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.format.by_block import ByBlock, blocks_of, digest_of, regrouped

WHOLE = np.arange(50, dtype=np.int64) * 3


def cut(lengths: list[int]) -> ByBlock:
    """The array in blocks of some lengths, and the rest."""
    bounds = [bound for bound in np.cumsum(lengths).tolist() if bound < len(WHOLE)]
    return ByBlock(len(WHOLE), WHOLE.dtype, lambda: np.split(WHOLE, bounds))


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(1, 60))
def test_blocks_say_nothing_of_the_array(lengths: list[int], rows: int) -> None:
    array = cut(lengths)
    assert digest_of(array) == digest_of(WHOLE) == xxhash.xxh64_hexdigest(WHOLE.tobytes())
    np.testing.assert_array_equal(np.concatenate(list(blocks_of(array))), WHOLE)
    for ours, theirs in zip(regrouped(array, rows), regrouped(WHOLE, rows), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("array", [np.zeros((3, 4, 5), np.float32), np.zeros(0, np.uint8), np.ones(7, ">i4")])
def test_a_digest_is_of_little_endian_bytes_in_c_order(array: np.ndarray) -> None:
    little = array.astype(array.dtype.newbyteorder("<"))
    assert digest_of(array) == xxhash.xxh64_hexdigest(little.tobytes())
