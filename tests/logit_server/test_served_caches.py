import shutil
from pathlib import Path

import pytest

from cache_builder.format import ConfigError, CorruptCacheError, FormatError, IncompleteCacheError
from logit_server.errors import ReplacedCacheError, UnknownCacheError
from logit_server.roster import missing
from logit_server.served_caches import Catalog, Missing
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.sources_of_caches import split_name
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format.damage import changed, flipped


def settings(*caches: object, **others: object) -> Settings:
    return Settings.checked(caches=tuple(str(cache) for cache in caches), **others)


@pytest.mark.parametrize(
    ("item", "name", "location"),
    [
        ("/data/a.zarr", None, "/data/a.zarr"),
        ("vit=/data/a.zarr", "vit", "/data/a.zarr"),
        ("/data/a=b.zarr", None, "/data/a=b.zarr"),
        ("./a=b.zarr", None, "./a=b.zarr"),
        ("s3://bucket/a=b.zarr", None, "s3://bucket/a=b.zarr"),
        ("v=s3://bucket/a=b.zarr", "v", "s3://bucket/a=b.zarr"),
    ],
)
def test_a_cache_may_be_given_another_name(item: str, name: str | None, location: str) -> None:
    assert split_name(item) == (name, location)


def test_caches_are_found_by_name_and_by_id(cache_path: Path) -> None:
    catalog = open_catalog(settings(f"mine={cache_path}"))
    (served,) = catalog
    assert catalog.find("mine") is served
    assert catalog.find(served.cache_id) is served
    with pytest.raises(UnknownCacheError, match="'synthetic' here; this server has 'mine'"):
        catalog.find("synthetic")


def test_one_cache_under_two_names(cache_path: Path) -> None:
    catalog = open_catalog(settings(f"a={cache_path}", f"b={cache_path}"))
    assert catalog.find("a").cache_id == catalog.find("b").cache_id


def test_who_knows_an_id_alone_is_not_told_what_is_in_its_place(cache_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(cache_path),)))
    gone = Missing("synthetic", ReplacedCacheError, f"'synthetic' is cache {served.cache_id} by now")
    catalog = Catalog([served], missing={"b" * 32: gone})
    for keys, is_told in [({"b" * 32}, False), ({"synthetic"}, True), ({"synthetic", "b" * 32}, True)]:
        with pytest.raises(ReplacedCacheError) as error:
            catalog.only(keys).find("b" * 32)
        assert (served.cache_id in str(error.value), "synthetic" in str(error.value)) == (is_told, is_told)


def test_who_knows_an_id_alone_is_told_whether_its_store_is_away_or_has_another_cache() -> None:
    of_id = missing("synthetic").of_id("b" * 32)
    assert "store is out of reach" in of_id.detail
    assert "synthetic" not in of_id.detail
    assert "is put back" in Missing("synthetic", ReplacedCacheError, "").of_id("b" * 32).detail


def test_two_caches_of_one_name_are_refused(cache_path: Path, own_cache: Path) -> None:
    with pytest.raises(ConfigError, match="NAME="):
        open_catalog(settings(cache_path, own_cache))


def test_no_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match="no cache to serve"):
        open_catalog(settings())


def test_an_incomplete_cache_is_refused(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "half.zarr", synthetic_logits(2, 64, 10), commit=1)
    with pytest.raises(IncompleteCacheError, match="1 of 2 tiles are missing"):
        open_catalog(settings(tmp_path / "half.zarr"))


def test_a_path_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is no cache here"):
        open_catalog(settings(tmp_path / "nothing.zarr"))


def test_a_damaged_header_array_is_refused(own_cache: Path) -> None:
    (file,) = (own_cache / "codec/logits/mean/c").rglob("0")
    with (
        changed(file, flipped(file.read_bytes(), 100)),
        pytest.raises(CorruptCacheError, match="codec/logits/mean"),
    ):
        open_catalog(settings(own_cache))
    open_catalog(settings(own_cache))


def test_a_block_larger_than_the_budget_is_refused(cache_path: Path) -> None:
    (served,) = open_catalog(settings(cache_path))
    with pytest.raises(ConfigError, match="raise page_bytes"):
        open_catalog(settings(cache_path, page_bytes=served.block_bytes - 1))
    open_catalog(settings(cache_path, page_bytes=served.block_bytes))


def test_a_cache_that_is_gone_is_refused(own_cache: Path) -> None:
    shutil.rmtree(own_cache)
    with pytest.raises(FormatError):
        open_catalog(settings(own_cache))
