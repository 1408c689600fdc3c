"""The picture of what a byte buys: legible for any table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_builder.calibration import calibrate
from cache_builder.calibration.rate_picture import _limits, plot
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, CodecRequest, RatePoint
from tests.rate_points import rate_point

BAD = tuple(rate_point(20 + 5 * i, 0.9 - 0.05 * i, (0.4, -0.3 + 0.1 * i), worst=-0.4) for i in range(4))
GOOD = tuple(rate_point(20 * 2**i, 0.02 / 4**i, (1 - 0.01 / 4**i, 1 - 0.02 / 4**i)) for i in range(6))
PERFECT = tuple(rate_point(size, 0.0, (1.0, 1.0), worst=1.0) for size in (20.0, 30.0))
EARLIER = tuple(rate_point(size, None, None) for size in (20.0, 30.0))


@pytest.mark.parametrize(
    ("table", "panels"),
    [(BAD, 3), (GOOD, 3), (PERFECT, 3), (BAD[:1], 3), (BAD[:1] * 3, 3), (EARLIER, 2)],
    ids=["bad", "good", "perfect", "one", "equal", "earlier"],
)
def test_every_table_has_a_picture(table: tuple[RatePoint, ...], panels: int, tmp_path: Path) -> None:
    section = CalibrationSection(pairs=9, logit_std=1, tail_error=0, table=table, chosen=0)
    plot(section, "name", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 520 * panels
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


@pytest.mark.parametrize("drawn", [[0.3], [0.9, 0.95], [1e-5] * 3, [1e-5, 0.05], [0.4, 1.7], [1e-5, 1.0]])
def test_all_points_lie_within_a_decade_or_more(drawn: list[float]) -> None:
    low, high = _limits(drawn)
    assert low < min(drawn)
    assert max(drawn) < high
    assert np.log10(high / low) > 0.999
    assert high <= 1.15 * max(1, *drawn)


def test_a_cache_of_every_class_has_none(tmp_path: Path) -> None:
    found = calibrate.unfitted(10, CodecRequest())
    assert found is not None
    with pytest.raises(ConfigError, match="'name' has no rate-distortion table"):
        plot(found.section, "name", tmp_path / "a.png")
