"""The table and the picture of what a byte buys."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from cache_builder.calibration import calibrate
from cache_builder.calibration.rate_distortion import frontier, plot, rate_table
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CodecRequest
from tests.cache_builder.calibration.test_calibrate import logits_of

SECTION = calibrate.fit(logits_of(300), CodecRequest(bytes_per_view=20)).section


def test_the_frontier_rises_and_holds_the_chosen_row() -> None:
    rows = frontier(SECTION)
    assert SECTION.chosen in rows
    edge = [SECTION.table[index] for index in rows if index != SECTION.chosen]
    assert [point.bytes_per_view for point in edge] == sorted(point.bytes_per_view for point in edge)
    assert [point.gradient_cosine for point in edge] == sorted(point.gradient_cosine for point in edge)


def test_the_table_marks_the_chosen_row_and_fits_a_screen() -> None:
    printed = io.StringIO()
    Console(file=printed, width=100).print(rate_table(SECTION))
    lines = printed.getvalue().splitlines()
    assert len(lines) < 25
    (chosen,) = [line for line in lines if line.startswith("*")]
    assert SECTION.chosen is not None
    assert f"{SECTION.table[SECTION.chosen].bytes_per_view:.1f}" in chosen


def test_the_picture(tmp_path: Path) -> None:
    plot(SECTION, "name", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_a_cache_of_every_class_has_none(tmp_path: Path) -> None:
    found = calibrate.unfitted(10, CodecRequest())
    assert found is not None
    with pytest.raises(ConfigError, match="'name' has no rate-distortion table"):
        plot(found.section, "name", tmp_path / "a.png")
