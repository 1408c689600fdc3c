"""A listing says what there is and how large it is, on disks and on object stores alike."""

import hashlib
from pathlib import Path

from cache_builder.format.listing import Listed, listing
from cache_builder.format.store import open_store, write_durably
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.object_store import BUCKET, counted_http, s3_server


def test_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "cache.zarr"
    write_synthetic_cache(path, synthetic_logits(2, 16, 12))
    files = {str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()}
    found = listing(open_store(path, read_only=True))
    assert {key: one.size for key, one in found.items()} == files


def test_of_a_bucket_one_request_tells_sizes_and_what_the_bytes_certainly_are() -> None:
    with s3_server():
        store = open_store(f"s3://{BUCKET}/a", read_only=False)
        objects = {"x": b"some bytes", "folder/y": b"", "folder/z": b"more"}
        for key, data in objects.items():
            write_durably(store, key, data)
        with counted_http() as seen:
            found = listing(store)
        assert len(seen) == 1
    assert {key: one.size for key, one in found.items()} == {key: len(data) for key, data in objects.items()}
    assert all(found[key].is_certainly(data) for key, data in objects.items())
    assert not found["x"].is_certainly(b"other byte")


def test_nobody_is_certain_without_a_tag() -> None:
    data = b"some bytes"
    assert not Listed(len(data)).is_certainly(data)
    tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert Listed(len(data), tag).is_certainly(data)
    assert not Listed(len(data) + 1, tag).is_certainly(data)
