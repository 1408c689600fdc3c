from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import open_cache
from cache_builder.format.same_samples import (
    contradictions,
    differing_array,
    first_difference,
    same_ids,
    same_labels,
)
from cache_builder.format.writer import SampleTable
from tests.caches import synthetic_logits, write_synthetic_cache


def test_labels_contradict_where_both_are_known() -> None:
    ours, theirs = np.array([0, 1, -1, 2], np.int32), np.array([0, 2, 3, -1], np.int32)
    assert contradictions(ours, theirs).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [("abc", "abc", None), ("abc", "abd", 2), ("ab", "abc", 2), ("abc", "ab", 2), ("", "", None)],
)
def test_the_first_difference(ours: str, theirs: str, place: int | None) -> None:
    assert first_difference(list(ours), list(theirs)) == place


def test_a_cache_and_a_table(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "a.zarr", synthetic_logits(views=1, rows=20, classes=10))
    cache = open_cache(tmp_path / "a.zarr")
    ids = list(cache.ids)
    assert differing_array(cache, SampleTable.from_ids(ids, cache.labels)) is None
    assert differing_array(cache, SampleTable.from_ids(ids, None)) == "samples/label"
    swapped = SampleTable.from_ids([ids[1], ids[0], *ids[2:]], cache.labels)
    assert differing_array(cache, swapped) == "samples/id_bytes"
    other = {**cache.manifest.digests, "samples/label": "0"}
    relabelled = cache.manifest.model_copy(update={"digests": other})
    assert same_ids(cache.manifest, relabelled)
    assert not same_labels(cache.manifest, relabelled)
