"""Whatever happens to a file of a cache, a reader gets the same numbers or an error: never others.

The campaigns are seeded; a failure prints the file and the bit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import open_cache
from cache_builder.format.layout import tile_arrays, tiles
from cache_builder.format.root import read_manifest
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.conftest import Written
from tests.format.damage import changed, contents, files_of, flipped, pick_bits, read_or_refuse


@pytest.fixture(params=["tail_cache", "sketch_cache", "exact_cache"])
def written(request: pytest.FixtureRequest) -> Written:
    cache: Written = request.getfixturevalue(request.param)
    return cache


def flip_campaign(path: Path, per_file: int, seed: int) -> list[str]:
    """Flips random bits, one at a time; returns those that changed a number without a word."""
    before = contents(path)
    refused, unnoticed = 0, []
    for file, bit in pick_bits(np.random.default_rng(seed), files_of(path), per_file):
        with changed(file, flipped(file.read_bytes(), bit)):
            found = read_or_refuse(path)
        if found not in (None, before):
            unnoticed.append(f"bit {bit} of {file.relative_to(path)}")
        refused += found is None
    assert refused, "nothing was noticed: the campaign itself is broken"
    return unnoticed


def test_flipped_bits_never_change_a_number(written: Written) -> None:
    assert flip_campaign(written.path, per_file=2, seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_thousands_of_flipped_bits_never_change_a_number(written: Written, seed: int) -> None:
    assert flip_campaign(written.path, per_file=15, seed=seed) == []


def test_every_flip_in_stored_numbers_is_refused(written: Written) -> None:
    """Shards and header chunks are covered to the last bit; only metadata has bits that mean nothing."""
    chunks = [file for file in files_of(written.path) if file.suffix != ".json"]
    for file, bit in pick_bits(np.random.default_rng(1), chunks, 1):
        with changed(file, flipped(file.read_bytes(), bit)):
            assert read_or_refuse(written.path) is None, f"bit {bit} of {file} went unnoticed"


@pytest.mark.parametrize("keep", [None, 0.0, 0.5], ids=["deleted", "emptied", "halved"])
def test_files_that_are_not_whole_never_change_a_number(written: Written, keep: float | None) -> None:
    before = contents(written.path)
    for file in files_of(written.path):
        data = file.read_bytes()
        with changed(file, None if keep is None else data[: int(keep * len(data))]):
            found = read_or_refuse(written.path)
        # The zarr.json of an inner group is never read, and an array of zeros is what its absence reads as.
        assert found in (None, before), f"{file.relative_to(written.path)}"


def test_bytes_replaced_by_zeros_never_change_a_number(tail_cache: Written) -> None:
    before = contents(tail_cache.path)
    for file in files_of(tail_cache.path):
        with changed(file, bytes(file.stat().st_size)):
            assert read_or_refuse(tail_cache.path) in (None, before), f"{file}"


def test_an_unsealed_cache_is_guarded_too(tmp_path: Path) -> None:
    """Before there is a cache_id, the commits tie the manifest down and the header digests the arrays."""
    path = tmp_path / "c.zarr"
    sizes = {"top_k": 3, "rank": 3, "wide": 1, "tile_views": 2, "tile_rows": 8}
    write_synthetic_cache(path, synthetic_logits(3, 12, 10), commit=4, **sizes)
    before = contents(path, allow_partial=True)
    commits = path / "commits"
    files = [file for file in files_of(path) if commits not in file.parents]
    for file, bit in pick_bits(np.random.default_rng(2), files, 1):
        with changed(file, flipped(file.read_bytes(), bit)):
            found = read_or_refuse(path, allow_partial=True)
        assert found in (None, before), f"bit {bit} of {file.relative_to(path)} changed a number"


def test_shards_swapped_between_tiles_are_found_by_their_checksums(tail_cache: Written) -> None:
    """A page read checks presence, size and Zarr's checksums; the full check also tells shards apart."""
    manifest = read_manifest(tail_cache.path)
    assert manifest is not None
    first, second, *_ = tiles(manifest)
    spec = next(spec for spec in tile_arrays(manifest, first) if spec.path == "records/logits/topk_span")
    one, two = (tail_cache.path / spec.shard_key(tile) for tile in (first, second))
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    damaged = list(open_cache(tail_cache.path).damaged_shards())
    assert [key.split(" ")[0] for key in damaged] == [spec.shard_key(first), spec.shard_key(second)]
