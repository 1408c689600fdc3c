"""Arrays are opened only when their metadata means what the layout says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache_builder.format import CorruptCacheError
from cache_builder.format.arrays import create_array, expected_metadata, open_array
from cache_builder.format.layout import ArraySpec
from cache_builder.format.store import open_store

SHARDED = ArraySpec("a", np.dtype("<u2"), (3, 5, 2), (1, 4, 2), (2, 4, 2), (0, 2, 1), ("view", "row", "item"))
PLAIN = ArraySpec("a", np.dtype("<f4"), (4, 3), (4, 3), None, None, None)
BYTES = ArraySpec("a", np.dtype("u1"), (7,), (7,), None, None, ("row",))


@pytest.mark.parametrize("spec", [SHARDED, PLAIN, BYTES], ids=["sharded", "plain", "bytes"])
def test_what_was_created_opens_and_reads_back(spec: ArraySpec, tmp_path: Path) -> None:
    values = np.arange(np.prod(spec.shape)).reshape(spec.shape).astype(spec.dtype)
    create_array(zarr.create_group(tmp_path), spec)[...] = values
    array = open_array(open_store(tmp_path, read_only=True), spec, "here")
    assert array.dtype == spec.dtype
    np.testing.assert_array_equal(array[...], values)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / "a" / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def inner(metadata: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = metadata["codecs"][0]["configuration"]
    return configuration


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(shape=[3, 6, 2]),
        lambda m: m.update(data_type="int16"),
        lambda m: m.update(fill_value=1),
        lambda m: m.update(node_type="group"),
        lambda m: m.update(zarr_format=2),
        lambda m: m.pop("codecs"),
        lambda m: m.update(codecs=7),
        lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 4, 2]),
        lambda m: m["chunk_key_encoding"]["configuration"].update(separator="."),
        lambda m: m["chunk_key_encoding"].update(name="v2"),
        lambda m: inner(m).update(chunk_shape=[2, 4, 2]),
        lambda m: inner(m).update(index_location="start"),
        lambda m: inner(m)["index_codecs"].pop(),
        lambda m: inner(m)["codecs"].pop(),
        lambda m: inner(m)["codecs"].pop(0),
        lambda m: inner(m)["codecs"][0]["configuration"].update(order=[0, 1, 2]),
        lambda m: inner(m)["codecs"][1]["configuration"].update(endian="big"),
        lambda m: m.update(storage_transformers=[{"name": "x"}]),
    ],
)
def test_other_metadata_is_refused_by_name(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    create_array(zarr.create_group(tmp_path), SHARDED)
    edit(tmp_path, change)
    with pytest.raises(CorruptCacheError, match=r"here: a/zarr.json"):
        open_array(open_store(tmp_path, read_only=True), SHARDED, "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"shape": []}'])
def test_metadata_that_is_no_array_is_refused(text: str, tmp_path: Path) -> None:
    create_array(zarr.create_group(tmp_path), PLAIN)
    (tmp_path / "a" / "zarr.json").write_text(text)
    with pytest.raises(CorruptCacheError, match=r"a/zarr.json"):
        open_array(open_store(tmp_path, read_only=True), PLAIN, "here")


def test_missing_metadata_is_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path)
    with pytest.raises(CorruptCacheError, match="it is missing"):
        open_array(open_store(tmp_path, read_only=True), PLAIN, "here")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(attributes={"note": "hello"}),
        lambda m: m.update(dimension_names=None),
        lambda m: m["chunk_key_encoding"].pop("configuration"),
        lambda m: inner(m).pop("index_location"),
        lambda m: inner(m)["codecs"][2]["configuration"].update(clevel=1),
    ],
    ids=["attributes", "dimensions", "default separator", "default location", "level"],
)
def test_what_zarr_allows_to_write_otherwise_is_accepted(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    values = np.arange(30, dtype=np.uint16).reshape(SHARDED.shape)
    create_array(zarr.create_group(tmp_path), SHARDED)[...] = values
    edit(tmp_path, change)
    array = open_array(open_store(tmp_path, read_only=True), SHARDED, "here")
    np.testing.assert_array_equal(array[...], values)


def test_another_compressor_reads_the_same_numbers(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(PLAIN.shape)
    group = zarr.create_group(tmp_path)
    compressors = [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
    group.create_array("a", shape=PLAIN.shape, chunks=PLAIN.chunks, dtype="f4", compressors=compressors)[
        ...
    ] = values
    array = open_array(open_store(tmp_path, read_only=True), PLAIN, "here")
    np.testing.assert_array_equal(array[...], values)


def test_the_metadata_of_the_specification() -> None:
    assert expected_metadata(PLAIN) == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4, 3],
        "data_type": "float32",
        "chunk_grid": ("regular", {"chunk_shape": [4, 3]}),
        "chunk_key_encoding": ("default", {"separator": "/"}),
        "fill_value": 0,
        "codecs": [("bytes", {"endian": "little"}), ("crc32c", {})],
    }
