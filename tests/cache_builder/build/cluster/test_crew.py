"""How many actors a cluster has room for, and what Ray is asked for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.build.cluster.crew import Sizes, decoder_options, sizes, teacher_options, wants_gpus
from tests.cache_builder.conftest import settings_for

EIGHT_GPUS = {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("device", "resources", "expected"),
    [
        ("auto", EIGHT_GPUS, True),
        ("auto", {"CPU": 4.0}, False),
        ("cuda", {"CPU": 4.0}, True),  # their nodes may come later
        ("cpu", EIGHT_GPUS, False),
    ],
)
def test_where_teachers_run(device: str, resources: dict[str, float], expected: bool) -> None:
    assert wants_gpus(settings_for("x", Path("y"), device=device), resources) is expected


@pytest.mark.parametrize(
    ("resources", "asked", "expected"),
    [
        (EIGHT_GPUS, {}, Sizes(8, 96)),
        ({"CPU": 256.0, "GPU": 2.0}, {}, Sizes(2, 32)),
        ({"CPU": 4.0}, {}, Sizes(1, 4)),  # no GPU yet: one teacher waits for one
        (EIGHT_GPUS, {"ray_teachers": 3, "ray_decoders": 0}, Sizes(3, 0)),
    ],
)
def test_with_gpus(resources: dict[str, float], asked: dict[str, int], expected: Sizes) -> None:
    assert sizes(settings_for("x", Path("y"), **asked), resources, on_gpus=True) == expected


@pytest.mark.parametrize(
    ("resources", "asked", "expected"),
    [
        ({"CPU": 6.0}, {}, Sizes(6, 0)),
        ({"CPU": 6.0}, {"ray_cpus": 2}, Sizes(3, 0)),
        ({"CPU": 6.0}, {"ray_decoders": 2}, Sizes(4, 2)),
        ({"CPU": 1.0}, {"ray_decoders": 4}, Sizes(1, 4)),
        ({}, {}, Sizes(1, 0)),
    ],
)
def test_without_gpus(resources: dict[str, float], asked: dict[str, int], expected: Sizes) -> None:
    assert sizes(settings_for("x", Path("y"), **asked), resources, on_gpus=False) == expected


def test_what_ray_is_asked_for() -> None:
    settings = settings_for("x", Path("y"))
    on_gpu, on_cpu = teacher_options(settings, on_gpus=True), teacher_options(settings, on_gpus=False)
    assert (on_gpu["num_gpus"], on_gpu["num_cpus"]) == (1, 0)
    assert (on_cpu["num_gpus"], on_cpu["num_cpus"]) == (0, 1)
    # Dead actors come back; a row block is repeated by the driver, a batch by Ray.
    assert on_gpu["max_restarts"] == decoder_options()["max_restarts"] == -1
    assert on_gpu["max_task_retries"] == 0 < decoder_options()["max_task_retries"]
