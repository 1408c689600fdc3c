"""`kdcache inspect` of samples that have several positions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cache_builder.cli.app import app
from tests.format.position_caches import COUNTS_OF_ROWS
from tests.format.test_golden import GOLDEN

COUNTS = {"grid": (6,) * 5, "ragged": COUNTS_OF_ROWS}
SAID = {
    "grid": "grid of 2 x 3: 6 per sample, 30 in a view",
    "ragged": "ragged: 0 to 4 per sample, 10 in a view",
}


def inspect(kind: str, *options: str) -> str:
    ended = CliRunner().invoke(app, ["inspect", str(GOLDEN / f"v3/{kind}.zarr"), *options])
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.mark.parametrize("kind", COUNTS)
def test_people_see_how_many_positions_there_are_and_each_of_the_sample(kind: str) -> None:
    for row, count in enumerate(COUNTS[kind]):
        said = inspect(kind, "--sample", f"{row}.txt", "--view", "1")
        assert SAID[kind] in " ".join(said.split())
        assert said.count(f"of {count}\n") == count
        assert ("this sample has no position" in said) == (count == 0)


@pytest.mark.parametrize("kind", COUNTS)
def test_json_has_every_position(kind: str) -> None:
    counts, logits = COUNTS[kind], np.load(GOLDEN / f"v3/{kind}.npy")
    ends = np.cumsum(counts)
    for row, count in enumerate(counts):
        body = json.loads(inspect(kind, "--sample", f"{row}.txt", "--view", "2", "--json"))
        assert body["positions"] == {"least": min(counts), "most": max(counts), "total": sum(counts)}
        best = [position["top"][0]["class_id"] for position in body["sample"]["positions"]]
        assert best == logits[2, ends[row] - count : ends[row]].argmax(axis=1).tolist()


def test_a_sample_of_one_position_is_told_as_ever() -> None:
    body = json.loads(inspect("tail", "--json"))
    assert list(body["sample"]) == ["sample_id", "row", "view", "label", "valid", "top", "tail_mass"]
