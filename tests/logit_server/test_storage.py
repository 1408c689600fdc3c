import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import CorruptCacheError, StorageError
from logit_server.errors import ReplacedCacheError
from logit_server.served_caches import ServedCache
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.storage import check_reachable, read_block
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.damage import changed, flipped

SHARD = Path("records", "logits", "topk_residual", "c", "0", "1", "0")


def served_from(path: Path) -> ServedCache:
    (served,) = open_catalog(Settings(caches=(str(path),)))
    return served


def test_a_block_is_what_the_local_reader_reads(cache_path: Path) -> None:
    served = served_from(cache_path)
    blocks = [read_block(served, 1, block) for block in range(len(served.blocks))]
    np.testing.assert_array_equal(np.concatenate(blocks), served.cache.read_page(1))


def test_damage_names_the_tile_and_the_cache_but_no_folder_of_the_server(own_cache: Path) -> None:
    served = served_from(own_cache)
    shard = own_cache / SHARD
    with changed(shard, flipped(shard.read_bytes(), 800)), pytest.raises(CorruptCacheError) as caught:
        read_block(served, 0, 1)
    assert "cache 'synthetic'" in str(caught.value)
    assert "views 0-1, rows 32-63" in str(caught.value)
    assert str(own_cache) not in str(caught.value)
    read_block(served, 0, 1)


def test_a_missing_shard_is_damage(own_cache: Path) -> None:
    served = served_from(own_cache)
    with changed(own_cache / SHARD, None), pytest.raises(CorruptCacheError, match=r"rows 32-63.*is missing"):
        read_block(served, 0, 1)


def test_a_disk_that_does_not_answer_names_the_tile_too(own_cache: Path) -> None:
    served = served_from(own_cache)
    shard = own_cache / SHARD
    before = shard.read_bytes()
    shard.unlink()
    shard.symlink_to(shard)  # reading it fails with ELOOP: an OSError that is not "no such file"
    where = r"view 0: records/logits/topk_residual/\S+ \(views 0-1, rows 32-63\)"
    with pytest.raises(StorageError, match=where):
        read_block(served, 0, 1)
    shard.unlink()
    shard.write_bytes(before)
    read_block(served, 0, 1)


def test_another_cache_at_the_same_path_is_noticed(own_cache: Path) -> None:
    served = served_from(own_cache)
    shutil.rmtree(own_cache)
    write_synthetic_cache(own_cache, synthetic_logits(3, 100, 40, seed=1))
    with pytest.raises(ReplacedCacheError):
        read_block(served, 0, 1)


def test_a_manifest_that_was_edited_is_damage_where_all_records_are_readable(own_cache: Path) -> None:
    served = served_from(own_cache)
    root = own_cache / "zarr.json"
    text = root.read_text()
    assert served.cache_id in text
    with (
        changed(root, text.replace(served.cache_id, "0" * 32).encode()),
        pytest.raises(CorruptCacheError, match="do not give cache_id"),
    ):
        read_block(served, 0, 1)
    read_block(served, 0, 1)


def test_a_cache_that_is_away_is_out_of_reach_and_not_damaged(own_cache: Path) -> None:
    served = served_from(own_cache)
    expected = read_block(served, 0, 1).tobytes()
    own_cache.rename(own_cache.with_name("elsewhere"))
    for look in (lambda: read_block(served, 1, 1), lambda: check_reachable(served)):
        with pytest.raises(StorageError, match="out of reach") as caught:
            look()
        assert str(own_cache.parent) not in str(caught.value)
    own_cache.with_name("elsewhere").rename(own_cache)
    check_reachable(served)
    assert read_block(served, 0, 1).tobytes() == expected
