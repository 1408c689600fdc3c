"""Principal axes by each of the three ways, against a singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cache_builder.calibration import components
from cache_builder.calibration.components import Pairs, principal_axes

Floats = NDArray[np.float32]


def pairs_of(count: int, classes: int) -> Floats:
    """A falling spectrum of 20 directions, a little noise, and a mean that is not 0."""
    rng = np.random.default_rng(count + classes)
    strong = rng.normal(size=(count, 20)) * np.geomspace(10, 0.5, 20)
    noise = 0.05 * rng.normal(size=(count, classes))
    return (strong @ rng.normal(size=(20, classes)) + noise + 3).astype(np.float32)


@pytest.mark.parametrize(("count", "classes"), [(300, 40), (50, 400), (300, 400)])
@pytest.mark.parametrize("exact", [10_000, 200, 30])
def test_axes_hold_what_the_best_ones_do(
    monkeypatch: pytest.MonkeyPatch, count: int, classes: int, exact: int
) -> None:
    monkeypatch.setattr(components, "_EXACT", exact)
    monkeypatch.setattr(components, "_ENOUGH", 1000)
    monkeypatch.setattr(components, "_BLOCK_VALUES", 1000)
    pairs = pairs_of(count, classes)
    mean = pairs.mean(axis=0, dtype=np.float64)
    axes = principal_axes(Pairs.all(pairs), mean, 12)
    np.testing.assert_allclose(axes @ axes.T, np.eye(12), atol=1e-5)
    best = np.linalg.svd(pairs - mean, compute_uv=False)[:12]
    held = np.square((pairs - mean) @ axes.T).sum()
    assert held == pytest.approx(np.square(best).sum(), rel=1e-4)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_the_same_every_time() -> None:
    pairs = pairs_of(60, 90)
    mean = pairs.mean(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(
        *(principal_axes(Pairs.all(found), mean, 8) for found in (pairs, pairs.copy()))
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_the_pairs_do_not_span_is_zero(count: int) -> None:
    pairs = pairs_of(count, 30)
    axes = principal_axes(Pairs.all(pairs), pairs.mean(axis=0, dtype=np.float64), 10)
    assert axes.shape == (10, 30)
    assert not axes[count - 1 :].any()
    assert np.linalg.norm(axes[: count - 1], axis=1) == pytest.approx(np.ones(count - 1))


def test_only_the_chosen_pairs_count() -> None:
    pairs, chosen = pairs_of(80, 30), np.arange(80) % 3 > 0
    some, alone = Pairs(pairs, chosen), Pairs.all(pairs[chosen])
    assert len(some) == len(alone) == chosen.sum()
    np.testing.assert_allclose(some.mean(), pairs[chosen].mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(principal_axes(some, some.mean(), 5), principal_axes(alone, alone.mean(), 5))


def test_pairs_are_thinned_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "_EXACT", 20)
    monkeypatch.setattr(components, "_ENOUGH", 4)
    pairs = Pairs.all(pairs_of(300, 60))
    assert pairs.are_enough(10)
    assert not pairs.are_enough(100)
    assert len(pairs.thinned(40)) == 40
    assert len(pairs.thinned(1000)) == 300
