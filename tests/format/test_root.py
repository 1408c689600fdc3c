import json
from pathlib import Path

import pytest

from cache_builder.format import CorruptCacheError, FormatError
from cache_builder.format.root import ROOT_KEY, body_of, read_body, read_manifest, read_root
from tests.format.conftest import Written


def test_the_root_holds_the_manifest(tail_cache: Written) -> None:
    raw = read_root(tail_cache.path)
    assert raw == (tail_cache.path / ROOT_KEY).read_bytes()
    assert body_of(raw, tail_cache.path) == read_body(tail_cache.path)
    manifest = read_manifest(tail_cache.path)
    assert manifest is not None
    assert manifest.cache_id == json.loads(raw)["attributes"]["kdcache"]["cache_id"]


def test_where_nothing_is_there_is_no_root(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        assert (read_root(place), read_body(place), read_manifest(place)) == (None, None, None)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", CorruptCacheError),
        (b"{", CorruptCacheError),
        (b"[]", CorruptCacheError),
        (b"{}", CorruptCacheError),
        (b'{"zarr_format": 3, "node_type": "array"}', FormatError),
        (b'{"zarr_format": 3, "node_type": "group", "attributes": {"other": 1}}', FormatError),
    ],
)
def test_what_is_no_root_of_a_cache_is_refused(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="here"):
        body_of(raw, "here")
