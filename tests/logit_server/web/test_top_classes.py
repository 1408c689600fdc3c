import shutil
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import open_cache
from logit_server.served_caches import ServedCache
from logit_server.web import top_classes
from logit_server.web.top_classes import UNKNOWN, VIEW, TopClasses
from tests.logit_server.web.page_caches import INVALID_ROW, ROWS


@pytest.mark.parametrize("at_once", [7, 64, 256])
def test_they_are_those_of_the_records(
    at_once: int, served: ServedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_classes, "_AT_ONCE", at_once)
    found = TopClasses(served)
    found.find()
    stored = served.cache.stored(served.cache.read_page(VIEW))
    known = np.arange(ROWS) != INVALID_ROW
    np.testing.assert_array_equal(found.classes[known], stored.classes[known, 0])
    np.testing.assert_allclose(found.probabilities[known], np.exp(stored.values[:, 0] - stored.lse)[known])
    assert found.classes[INVALID_ROW] == UNKNOWN
    assert found.is_complete


def test_who_is_stopped_goes_on_where_it_was(served: ServedCache) -> None:
    found = TopClasses(served)
    found.stop()
    found.find()
    assert 0 < found.rows < ROWS
    assert not found.is_complete


def test_damage_is_told_and_what_was_found_stays(page_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(page_path, tmp_path / "damaged.zarr"))
    cache = open_cache(path)
    served = ServedCache("damaged", cache, cache.manifest.completed_id)
    shard = next((path / "records").rglob("c/0/1*"))
    shard = shard if shard.is_file() else next(file for file in shard.rglob("*") if file.is_file())
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    found = TopClasses(served)
    found.find()
    assert found.rows == 64
    assert found.failure is not None
    assert str(tmp_path) not in found.failure
