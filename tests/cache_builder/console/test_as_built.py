"""What a finished cache was found to keep, in words, and what is said where that is less than expected."""

from __future__ import annotations

import pytest

from cache_builder.console.as_built import as_built_facts, as_built_warnings
from cache_builder.format.kept import RecordKept
from cache_builder.format.manifest import Manifest
from cache_builder.format.statistics import TeacherStatistics
from tests.cache_builder.console.test_fidelity import POINTS, joint, with_table

CHOSEN = 3


def statistics(lost: float | None) -> TeacherStatistics:
    kept = None if lost is None else RecordKept(4096, lost, (0.998, 0.96))
    return TeacherStatistics(4096, 0, None, None, None, None, 1.0, 3.7, (4096,) + (0,) * 19, kept)


def manifest(lose: float = 0.02) -> Manifest:
    return with_table(*POINTS, chosen=CHOSEN, lose=lose, manifest=joint())


def test_facts() -> None:
    assert as_built_facts(manifest(), statistics(0.0123)) == {
        "as built": "1.2 % of the variance lost on 4,096 records of all tiles, gradient cosine 0.9980 at "
        "T = 1 and 0.9600 at T = 4"
    }


@pytest.mark.parametrize("found", [None, statistics(None)])
def test_a_build_that_did_not_look(found: TeacherStatistics | None) -> None:
    assert as_built_facts(manifest(), found) == {}
    assert as_built_warnings(manifest(), found) == []


def test_little_more_than_was_allowed_is_no_news() -> None:
    assert as_built_warnings(manifest(lose=0.1), statistics(0.12)) == []


def test_much_more_is_said_with_the_way_out() -> None:
    (warning,) = as_built_warnings(manifest(lose=0.1), statistics(0.4))
    assert warning.startswith(
        "WARNING: the records lose 40 % of the logits' variance where calibration expected"
    )
    # The chosen row loses 0.02 by calibration: four times as much as was allowed was found.
    assert warning.endswith("build again with --lose 0.005")


def test_a_codec_that_is_chosen_by_its_size() -> None:
    sized = with_table(*POINTS, chosen=CHOSEN)
    (warning,) = as_built_warnings(sized, statistics(0.9))
    assert f"with a larger --bytes-per-view, such as {2 * POINTS[CHOSEN].bytes_per_view:.0f}" in warning
