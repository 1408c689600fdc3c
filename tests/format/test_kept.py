"""What records keep, as sums that add up over tiles."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.format.kept import KeptSums, kept_figures


def sums(records: int = 4, error: float = 1.0, variance: float = 10.0) -> KeptSums:
    """Of a tile whose gradients have cosines of 0.6 and 0.8."""
    return KeptSums(
        records=records,
        error=error,
        variance=variance,
        product=(6.0 * variance, 8.0 * variance),
        decoded=(4.0 * variance, 4.0 * variance),
        live=(25.0 * variance, 25.0 * variance),
    )


def test_shares_are_of_the_sums_over_all_tiles() -> None:
    found = kept_figures([sums(), None, sums(records=2, error=9.0, variance=90.0)])
    assert found is not None
    assert (found.records, found.lost) == (6, 0.1)
    assert found.kd_cosines == pytest.approx((0.6, 0.8))


def test_the_order_of_tiles_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    tiles = [sums(error=float(e), variance=float(v)) for e, v in rng.uniform(0.1, 9, (20, 2))]
    assert kept_figures(tiles) == kept_figures(reversed(tiles))


@pytest.mark.parametrize("tiles", [[], [None], [sums(records=0)], [sums(variance=0.0)]])
def test_nothing_was_measured(tiles: list[KeptSums | None]) -> None:
    assert kept_figures(tiles) is None


def test_gradients_of_length_zero_are_alike() -> None:
    still = sums().model_copy(update={"product": (0.0, 0.0), "decoded": (0.0, 0.0), "live": (0.0, 0.0)})
    found = kept_figures([still])
    assert found is not None
    assert found.kd_cosines == (1.0, 1.0)
