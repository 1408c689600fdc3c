"""The capacity model counts as the format does, and stays within what it promises of what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import capacity_points, fleet_builds
from benchmarks.capacity_limits import LIMITS, first_broken
from benchmarks.capacity_model import LOST, Assumed, Build, Measured, Serving, Store, Work, works
from benchmarks.report import RESULTS
from cache_builder.format.layout import tiles
from tests.caches import synthetic_manifest


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured.read()


@pytest.fixture(scope="module")
def imagenet(measured: Measured) -> Work:
    return works(measured)[0]


def result(name: str) -> list[dict[str, Any]]:
    found = json.loads((RESULTS / f"{name}.json").read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


@pytest.mark.parametrize(("rows", "views"), [(1, 1), (100, 3), (4096, 8), (4097, 9), (20_000, 300)])
def test_tiles_are_those_of_the_format(imagenet: Work, rows: int, views: int) -> None:
    manifest = synthetic_manifest(views=views, rows=rows, tile_views=min(views, 8), tile_rows=min(rows, 4096))
    assert replace(imagenet, samples=rows, views=views).tiles == len(list(tiles(manifest)))


def test_a_smaller_loss_takes_more_bytes(measured: Measured) -> None:
    sizes = [Store(works(measured, lost)[0]).bytes for lost in LOST]
    assert sizes == sorted(sizes)


def test_hours_and_bytes_grow_with_the_records_and_memory_with_the_rows(
    imagenet: Work, measured: Measured
) -> None:
    twice = replace(imagenet, views=600)
    assert Build(twice, measured, Assumed()).gpu_h == pytest.approx(
        2 * Build(imagenet, measured, Assumed()).gpu_h
    )
    assert Store(twice).bytes == pytest.approx(2 * Store(imagenet).bytes, rel=0.01)
    assert LIMITS[0].used(twice, measured) == LIMITS[0].used(imagenet, measured)


def test_servers_grow_with_the_trainers_and_pages_do_not(imagenet: Work, measured: Measured) -> None:
    few, many = (Serving(imagenet, trainers, 1000.0, measured, Assumed()) for trainers in (8, 80_000))
    assert few.servers == 1 < many.servers
    assert few.page_bytes == many.page_bytes


def test_what_breaks_is_what_is_above_what_is_allowed(measured: Measured) -> None:
    for work in works(measured):
        broken = first_broken(work, measured)
        assert set(broken) == {limit.what for limit in LIMITS if limit.used(work, measured) > 1}


def test_every_point_is_within_the_tolerance() -> None:
    points = result("capacity_points")
    assert len(points) >= 4
    for point in points:
        assert point["ratio"] == pytest.approx(1, abs=capacity_points.TOLERANCE), point["what"]


def test_the_formula_of_the_hours_is_within_its_tolerance_of_the_simulation() -> None:
    builds = [
        line
        for line in result("fleet_builds")
        if line["row blocks"] >= fleet_builds.ENOUGH_BLOCKS * fleet_builds.Fleet().builders
    ]
    assert {line["what happens"] for line in builds} == set(fleet_builds.FLEETS)
    for line in builds:
        assert line["formula / simulated"] == pytest.approx(1, abs=fleet_builds.TOLERANCE), line
