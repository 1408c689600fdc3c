from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from cache_builder.format.errors import ConfigError
from cache_builder.views.configuration import parse_recipe
from cache_builder.views.mixing import SHARE_UNIT, Mixing

SAMPLES = 8001
ROWS = np.arange(SAMPLES)


def one_of_each_pair(values: NDArray[np.float64], partner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Both partners have one lambda: for a test of independence one of them counts."""
    return values[partner > ROWS]


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 4.0])
def test_lambda_is_beta_distributed(alpha: float) -> None:
    drawn = Mixing(mixup_alpha=alpha).draw(1, 2, ROWS, SAMPLES)
    share = one_of_each_pair(drawn.share, drawn.partner)
    beta = stats.beta(alpha, alpha)
    # To within its rounding to 1 / 65536.
    assert stats.kstest(share, beta.cdf).statistic < 1.95 / np.sqrt(len(share)) + beta.cdf(2**-16)
    assert share.mean() == pytest.approx(0.5, abs=5 * beta.std() / np.sqrt(len(share)))
    assert share.var() == pytest.approx(beta.var(), rel=0.1)


@pytest.mark.parametrize("samples", [1, 2, 3, 10, 11, 1000])
def test_partners_share_everything(samples: int) -> None:
    rows = np.arange(samples)
    for settings in (Mixing(mixup_alpha=0.4), Mixing(cutmix_alpha=1), Mixing(mixup_alpha=1, cutmix_alpha=1)):
        for view in range(1, 6):
            drawn = settings.draw(3, view, rows, samples)
            np.testing.assert_array_equal(drawn.partner[drawn.partner], rows)
            assert (~drawn.mixed).sum() == samples % 2
            np.testing.assert_array_equal(drawn.mixed, drawn.partner != rows)
            for values in (drawn.share, drawn.cut, drawn.is_cut):
                np.testing.assert_array_equal(values, values[drawn.partner])
            assert (drawn.share[~drawn.mixed] == 1).all()


def test_shares_are_whole_parts_of_the_unit() -> None:
    share = Mixing(mixup_alpha=0.4).draw(1, 2, ROWS, SAMPLES).share * SHARE_UNIT
    np.testing.assert_array_equal(share, np.round(share))


def test_boxes_have_the_area_of_the_partners_share() -> None:
    drawn = Mixing(cutmix_alpha=1).draw(1, 2, ROWS, SAMPLES)
    assert (drawn.is_cut == drawn.mixed).all()
    top, left, bottom, right = drawn.cut[drawn.mixed].T
    assert (drawn.cut >= 0).all()
    assert (drawn.cut <= 1).all()
    np.testing.assert_allclose((bottom - top) * (right - left), 1 - drawn.share[drawn.mixed], atol=1e-12)
    inside = (top > 0) & (left > 0) & (bottom < 1) & (right < 1)
    np.testing.assert_allclose((bottom - top)[inside], (right - left)[inside], atol=1e-12)
    # Not clipped, 1 - area is lambda, uniform for alpha = 1; clipping only makes the box smaller.
    assert 0.5 < drawn.share.mean() < 0.75


def test_probability_and_switch() -> None:
    drawn = Mixing(mixup_alpha=0.2, cutmix_alpha=1, probability=0.4, switch_probability=0.3).draw(
        1, 2, ROWS, SAMPLES
    )
    assert drawn.mixed.mean() == pytest.approx(0.4, abs=0.04)
    assert drawn.is_cut[drawn.mixed].mean() == pytest.approx(0.3, abs=0.05)
    assert (drawn.partner[~drawn.mixed] == ROWS[~drawn.mixed]).all()
    assert not drawn.cut[~drawn.is_cut].any()


def test_any_order_and_batch() -> None:
    settings, rows = Mixing(mixup_alpha=0.2, cutmix_alpha=1), np.array([3, 900, 17, 0])
    whole = settings.draw(5, 2, rows, 1000)
    for index in range(4):
        alone = settings.draw(5, 2, rows[index : index + 1], 1000)
        for name in ("partner", "share", "cut", "is_cut", "mixed"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[index])


def test_pinned() -> None:
    rows = np.array([0, 5, 10**6])
    drawn = Mixing(mixup_alpha=0.2).draw(7, 3, rows, 2 * 10**6)
    assert (drawn.share * SHARE_UNIT).tolist() == [280, 0, 84]
    drawn = Mixing(cutmix_alpha=1).draw(7, 3, rows, 2 * 10**6)
    np.testing.assert_allclose(drawn.share, [0.5100437177, 0.5429017783, 0.2906290472], atol=1e-9)
    np.testing.assert_allclose(
        drawn.cut,
        [
            [0.37907094, 0, 1, 0.78906966],
            [0, 0, 0.86606287, 0.52778873],
            [0.23552016, 0.04550401, 1, 0.97341724],
        ],
        atol=1e-8,
    )


def test_without_scipy_the_extra_is_named_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    for recipe in ("mixup", "augment:mix.cutmix_alpha=1"):
        with pytest.raises(ConfigError, match=r"need scipy: pip install 'kdcache\[mix\]'"):
            parse_recipe(recipe)
    with pytest.raises(ConfigError, match=r"kdcache\[mix\]"):
        Mixing(mixup_alpha=0.2).draw(1, 2, ROWS, SAMPLES)
    assert parse_recipe("randaugment").min_views() == 2
