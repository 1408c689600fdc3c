"""The benchmarks of data sets measure what they say, on little data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import decode, ids, shards
from cache_builder.datasets import open_source
from cache_builder.datasets.decoding import decode_image


def test_both_tables_are_the_same() -> None:
    names = [f"n{row % 7}/{row}.JPEG" for row in range(1000)]
    for before, now in zip(ids.table_of_list(names), ids.table_of_ids(names), strict=True):
        np.testing.assert_array_equal(before, now)


def test_shards_are_opened_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARDS", 2)
    monkeypatch.setattr(shards, "PER_SHARD", 3)
    shards.write_shards(tmp_path)
    spec = f"webdataset:{tmp_path}/{{0..1}}.tar"
    source = open_source(spec)
    assert len(source) == 6
    assert shards.timed_open(spec) > 0
    assert shards.timed_headers(tmp_path) > 0
    assert shards.timed_read(source, [5, 0], decode=True) > 0
    assert source.read(4).value.shape == (3, 375, 500)


def test_draft_reduces_large_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LONG_SIDES", (500, 2000))
    photos = decode.sets()
    small, large = photos["500 px"][0], photos["2000 px"][0]
    assert decode.drafted(small, [0], 1).shape == decode_image(small.data).shape
    reduced = decode.drafted(large, [0], 1).shape[-1]
    assert reduced in (1000, 500, 250)
    assert torch.equal(decode.render(decode_image(small.data), small, 0), decode.render(
        decode.drafted(small, [0], 1), small, 0
    ))  # fmt: skip
