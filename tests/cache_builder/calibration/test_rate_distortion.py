"""The table of what a byte buys."""

from __future__ import annotations

import io

from rich.console import Console

from cache_builder.calibration import calibrate
from cache_builder.calibration.rate_distortion import rate_table
from cache_builder.console.fidelity import frontier
from cache_builder.format.manifest import CalibrationSection, CodecRequest
from tests.cache_builder.calibration.test_calibrate import logits_of
from tests.rate_points import rate_point

SECTION = calibrate.fit(logits_of(300), CodecRequest(bytes_per_view=20)).section


def printed(section: CalibrationSection) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=100).print(rate_table(section))
    return text.getvalue().splitlines()


def test_the_frontier_rises_and_holds_the_chosen_row() -> None:
    rows = frontier(SECTION)
    assert SECTION.chosen in rows
    edge = [SECTION.table[index] for index in rows if index != SECTION.chosen]
    assert [point.bytes_per_view for point in edge] == sorted(point.bytes_per_view for point in edge)
    assert [-(point.lost or 0) for point in edge] == sorted(-(point.lost or 0) for point in edge)


def test_the_table_marks_the_chosen_row_and_fits_a_screen() -> None:
    lines = printed(SECTION)
    assert len(lines) < 25
    (chosen,) = [line for line in lines if line.startswith("*")]
    assert SECTION.chosen is not None
    assert f"{SECTION.table[SECTION.chosen].bytes_per_view:.1f}" in chosen


def test_the_columns_are_what_people_ask_about() -> None:
    point = rate_point(46.1, 0.0031, (0.9993, 0.9984), worst=0.9955)
    head, row = printed(CalibrationSection(pairs=9, logit_std=1, tail_error=0, table=(point,), chosen=0))
    assert " ".join(head.split()) == "bytes/view lost kd T=1 kd T=4 worst loss TV T=1 TV T=4"
    assert " ".join(row.split()) == "* 46.1 0.31 % 0.9993 0.9984 0.9955 0.1000 0.3000"


def test_tables_of_earlier_releases_go_by_the_worst_loss() -> None:
    points = [rate_point(size, None, None, worst) for size, worst in ((20, 0.9), (30, 0.8), (40, 0.95))]
    section = CalibrationSection(pairs=9, logit_std=1, tail_error=0, table=tuple(points), chosen=2)
    assert frontier(section) == [0, 2]
    assert " ".join(printed(section)[1].split()) == "20.0 - - - 0.9000 0.1000 0.3000"
