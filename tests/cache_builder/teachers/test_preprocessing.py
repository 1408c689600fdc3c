from __future__ import annotations

import pytest

from cache_builder.format.errors import ConfigError
from cache_builder.teachers.preprocessing import Preprocessing, described

USUAL = Preprocessing(input_size=224)


def test_overridden() -> None:
    assert USUAL.overridden() == USUAL
    found = USUAL.overridden(input_size=96, mean=(0, 0.5, 1), std=(1, 1, 0.2))
    assert (found.input_size, found.mean, found.std) == (96, (0, 0.5, 1), (1, 1, 0.2))
    assert found.crop_fraction == USUAL.crop_fraction


@pytest.mark.parametrize(
    "mean", [(0.5, 0.5), (0.5,) * 4, (), (123.7, 116.3, 103.5), (-0.1, 0, 0), (float("nan"), 0, 0)]
)
def test_impossible_mean(mean: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"--mean .*three numbers from 0 to 1"):
        USUAL.overridden(mean=mean)


def test_a_mean_of_zero_is_a_mean() -> None:
    assert USUAL.overridden(mean=(0.0, 0.0, 0.0)).mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("std", [(0.0, 0.2, 0.2), (58.4, 57.1, 57.4)])
def test_impossible_std(std: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="--std"):
        USUAL.overridden(std=std)


def test_described_ignores_what_it_does_not_know() -> None:
    assert described(USUAL, {"student": "x", "epochs": 3}) == USUAL
