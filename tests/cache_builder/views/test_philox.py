from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cache_builder.views.philox import uniforms

MASK = 2**64 - 1
ROWS = np.array([0, 1, 5, 4095, 10**9])


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 written from the paper: ten rounds, the key bumped between them."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(second >> 64) ^ c[1] ^ k[0], second & MASK, (first >> 64) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def expected(seed: int, view: int, row: int, count: int, stream: int) -> list[float]:
    words: list[int] = []
    block = 1
    while len(words) < count:
        words += philox4x64([block, row, stream, 0], [seed, view])
        block += 1
    return [(word >> 11) * 2.0**-53 for word in words[:count]]


def test_the_generator_of_this_test_passes_the_papers_known_answer() -> None:
    """From the authors' kat_vectors (Random123): all-zero and all-one inputs."""
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip
    assert philox4x64([MASK] * 4, [MASK] * 2) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@given(
    seed=st.integers(0, MASK),
    view=st.integers(0, 2**32),
    row=st.integers(0, 2**62),
    count=st.integers(1, 23),
    stream=st.integers(0, 9),
)
def test_counter_layout(seed: int, view: int, row: int, count: int, stream: int) -> None:
    drawn = uniforms(seed, view, np.array([row]), count, stream)
    assert drawn.tolist() == [expected(seed, view, row, count, stream)]


def test_pinned_numbers() -> None:
    """These decide every cache's crops: they may never change."""
    np.testing.assert_array_equal(
        np.round(uniforms(7, 3, np.array([0, 5, 10**9]), 3), 8),
        [
            [0.4821286, 0.72413557, 0.05025404],
            [0.97157472, 0.16877993, 0.77922173],
            [0.63051682, 0.53193332, 0.80926086],
        ],
    )


def test_rows_in_any_order_and_batch() -> None:
    whole = uniforms(7, 3, ROWS, 23)
    np.testing.assert_array_equal(uniforms(7, 3, ROWS[::-1], 23), whole[::-1])
    np.testing.assert_array_equal(
        np.concatenate([uniforms(7, 3, ROWS[i : i + 1], 23) for i in range(5)]), whole
    )
    np.testing.assert_array_equal(uniforms(7, 3, ROWS, 5), whole[:, :5])


def test_seed_view_row_and_stream_all_matter() -> None:
    drawn = {
        tuple(uniforms(seed, view, np.array([row]), 2, stream)[0])
        for seed in (0, 1, MASK)
        for view in (0, 1)
        for row in (0, 1)
        for stream in (0, 1)
    }
    assert len(drawn) == 24


def test_uniformly_distributed() -> None:
    drawn = uniforms(1, 2, np.arange(4000), 4)
    assert ((drawn >= 0) & (drawn < 1)).all()
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    # Each bin: binomial with mean 800, deviation 27.6; five deviations.
    assert np.abs(counts - 800).max() < 5 * 27.6
    correlation = np.corrcoef(drawn, rowvar=False) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_no_rows() -> None:
    assert uniforms(1, 2, np.array([], np.int64), 3).shape == (0, 3)


def test_another_process_draws_the_same() -> None:
    seed = 2**64 - 1
    program = (
        "import json, numpy as np; from cache_builder.views.philox import uniforms; "
        f"print(json.dumps(uniforms({seed}, 3, np.array({ROWS.tolist()}), 5).tolist()))"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout) == uniforms(seed, 3, ROWS, 5).tolist()
