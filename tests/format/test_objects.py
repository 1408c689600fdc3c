from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.format import open_cache
from cache_builder.format.objects import CacheObjects
from tests.caches import synthetic_logits, write_synthetic_cache


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("objects") / "c.zarr"
    write_synthetic_cache(path, synthetic_logits(views=3, rows=40, classes=40), sketch=True)
    return path


def test_every_file_but_manifest_and_commits_is_an_object(path: Path) -> None:
    objects = CacheObjects(open_cache(path))
    keys = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    for key, file in keys.items():
        if key == "zarr.json" or key.startswith("commits/"):
            assert not objects.has(key)
        else:
            assert objects.has(key)
            data = file.read_bytes()
            assert objects.size(key) == len(data)
            assert objects.read(key, range(1, len(data) - 1)) == data[1:-1]


def test_shards_and_metadata_must_be_there(path: Path) -> None:
    objects = CacheObjects(open_cache(path))
    assert objects.must_have("records/logits/zarr.json")
    assert objects.must_have("records/logits/topk_index/c/0/0/0")
    assert not objects.must_have("codec/logits/mean/c/0")
    assert objects.size("records/logits/topk_index/c/9/9/9") is None
    assert objects.read("records/logits/topk_index/c/9/9/9", range(3)) is None


@pytest.mark.parametrize("key", ["", "/", "../zarr.json", "records/logits/../zarr.json", "codec/c/0", "c/0"])
def test_other_keys_are_none(path: Path, key: str) -> None:
    assert not CacheObjects(open_cache(path)).has(key)
