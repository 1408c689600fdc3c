"""No bit of a ``zarr.json`` below the root is without a meaning, and caches of every version have theirs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format.metadata import metadata_problems
from cache_builder.format.reader import open_cache
from cache_builder.format.store import open_store
from tests.format.damage import changed, flipped, pick_bits

GOLDEN = Path(__file__).parent / "golden"


def problems(path: Path) -> list[str]:
    return list(metadata_problems(open_store(path, read_only=True), open_cache(path).array_specs()))


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("*/*.zarr")), ids=lambda path: path.parent.name + path.stem
)
def test_caches_of_every_version_pass(path: Path) -> None:
    assert problems(path) == []


@pytest.mark.parametrize(
    "key", ["commits", "samples", "records/logits", "samples/digest", "samples/label", "records/logits/view"]
)
def test_flipped_bits_are_noticed(key: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN / "v3" / "joint.zarr", tmp_path / "c.zarr"))
    specs, store = open_cache(path).array_specs(), open_store(path, read_only=True)
    file = path / key / "zarr.json"
    before = file.read_bytes()
    for _, bit in pick_bits(np.random.default_rng(3), [file], 60):
        with changed(file, flipped(before, bit)):
            found = list(metadata_problems(store, specs))
        assert len(found) == 1, f"bit {bit}"
        assert found[0].startswith(f"{key}/zarr.json (")


def test_a_group_that_is_gone_is_named(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN / "v3" / "joint.zarr", tmp_path / "c.zarr"))
    (path / "samples" / "zarr.json").unlink()
    assert problems(path) == ["samples/zarr.json (it is missing)"]


def test_another_compressor_is_another_writers_choice(tmp_path: Path) -> None:
    path = Path(shutil.copytree(GOLDEN / "v3" / "joint.zarr", tmp_path / "c.zarr"))
    file = path / "samples" / "digest" / "zarr.json"
    start, end = '{"name": "blosc"', '{"name": "crc32c"}'
    head, _, rest = file.read_text().partition(start)
    zstd = '{"name": "zstd", "configuration": {"level": 3, "checksum": false}}, '
    file.write_text(head + zstd + end + rest.partition(end)[2])
    assert problems(path) == []
