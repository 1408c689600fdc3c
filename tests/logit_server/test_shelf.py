import contextlib
import shutil
from pathlib import Path

import pytest

from cache_builder.format import ConfigError, StorageError, open_cache
from logit_server.errors import ReplacedCacheError, UnknownCacheError
from logit_server.roster import Roster, missing, shelf_of_run
from logit_server.served_caches import Catalog
from logit_server.settings import Settings
from logit_server.shelf import Shelf, Slot, open_shelf
from logit_server.sources_of_caches import Source, sources
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.extended import extend_synthetic

PLENTY = 2**30


def settings(*caches: Path | str) -> Settings:
    return Settings(caches=tuple(map(str, caches)))


@pytest.fixture
def folder(own_cache: Path, tmp_path: Path) -> Path:
    """A folder with a cache, with one that is being built, and with what is none."""
    folder = tmp_path / "many"
    (folder / ".hidden").mkdir(parents=True)
    (folder / "empty").mkdir()
    own_cache.rename(folder / "whole")
    write_synthetic_cache(folder / "half", synthetic_logits(2, 64, 10), commit=1)
    return folder


def test_a_folder_of_caches_stands_for_what_lies_in_it(folder: Path) -> None:
    place = str(folder)
    assert list(sources([place, "a=/b", "s3://c/d"])) == [
        Source(None, str(folder / "half"), place),
        Source(None, str(folder / "whole"), place),
        Source("a", "/b"),
        Source(None, "s3://c/d"),
    ]
    with pytest.raises(ConfigError, match="a folder of 2 caches, and a name is for one"):
        list(sources([f"a={folder}"]))


def test_what_cannot_be_served_of_a_folder_is_left_out(folder: Path) -> None:
    assert [slot.name for slot in open_shelf(settings(folder)).slots] == ["synthetic"]
    shutil.rmtree(folder / "whole")
    with pytest.raises(ConfigError, match="no cache that can be served"):
        open_shelf(settings(folder))


def test_an_away_slot_is_a_storage_error_until_its_cache_is_back(own_cache: Path) -> None:
    away, cache_id = own_cache.with_name("away"), open_cache(own_cache).manifest.completed_id
    own_cache.rename(away)
    slot = Slot("c", str(own_cache), known=[cache_id], missing=missing("c"))
    shelf = Shelf([slot])
    with pytest.raises(StorageError, match="out of reach"):
        slot.look()
    assert not slot.settle(PLENTY)
    for key in ("c", cache_id):
        with pytest.raises(StorageError):
            shelf.catalog().find(key)
    away.rename(own_cache)
    slot.look()
    assert slot.settle(PLENTY)
    assert {shelf.catalog().find(key).cache_id for key in ("c", cache_id)} == {cache_id}
    with pytest.raises(UnknownCacheError):
        shelf.catalog().find("f" * 32)


def test_a_cache_whose_blocks_do_not_fit_any_more_is_not_served(own_cache: Path) -> None:
    (slot,) = open_shelf(settings(own_cache)).slots
    slot.look()
    assert slot.settle(1)
    assert slot.current is None


def test_a_run_remembers_what_its_places_held(own_cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    shelf = shelf_of_run(settings(own_cache), run)
    old_id = shelf.slots[0].known[0]
    expected = open_cache(own_cache).read_page(2).tobytes()
    extend_synthetic(own_cache, 5)
    shelf.slots[0].look()
    shelf.slots[0].settle(PLENTY)
    Roster(run).write(shelf)

    late = shelf_of_run(settings(own_cache), run)
    former = late.catalog().find(old_id)
    read = former.place.read(former.cache, lambda cache: cache.read_page(2).tobytes())
    assert (former.views, read) == (3, expected)
    assert former.stored_bytes == shelf.catalog().find(old_id).stored_bytes

    own_cache.rename(own_cache.with_name("away"))
    for key in ("synthetic", old_id):
        with pytest.raises(StorageError):
            shelf_of_run(settings(own_cache), run).catalog().find(key)


@pytest.mark.parametrize("is_another_cache", [True, False])
def test_former_caches_outlast_what_was_there_for_a_moment(own_cache: Path, is_another_cache: bool) -> None:
    (slot,) = open_shelf(settings(own_cache)).slots
    old_id = slot.known[0]

    def look() -> Catalog:
        with contextlib.suppress(ReplacedCacheError):
            slot.look()
        slot.settle(PLENTY)
        return Shelf([slot]).catalog()

    new_id = extend_synthetic(own_cache, 5).completed_id
    assert look().find(old_id).views == 3
    kept = own_cache.rename(own_cache.with_name("kept"))
    if is_another_cache:
        write_synthetic_cache(own_cache, synthetic_logits(2, 64, 10))
    else:
        own_cache.mkdir()
        (own_cache / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    for key in (old_id, new_id):
        with pytest.raises(ReplacedCacheError):
            look().find(key)
    shutil.rmtree(own_cache)
    kept.rename(own_cache)
    assert look().find("synthetic").cache_id == new_id
    assert look().find(old_id).views == 3


def test_a_place_keeps_few_of_the_caches_that_were_replaced(own_cache: Path) -> None:
    (slot,) = open_shelf(settings(own_cache)).slots
    for seed in range(8):
        shutil.rmtree(own_cache)
        write_synthetic_cache(own_cache, synthetic_logits(2, 64, 10, seed), name="synthetic")
        slot.look()
        assert slot.settle(PLENTY)
    assert (len(slot.apart), slot.former) == (4, [])
    assert len(slot.known) == 9


def test_a_cache_whose_root_is_missing_is_no_folder_of_caches(own_cache: Path, tmp_path: Path) -> None:
    (own_cache / "zarr.json").unlink()
    assert list(sources([str(own_cache)])) == [Source(None, str(own_cache))]
    damaged = tmp_path / "many" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "zarr.json").write_bytes(b"{")
    assert [source.location for source in sources([str(damaged.parent)])] == [str(damaged)]
