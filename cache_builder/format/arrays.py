"""Zarr arrays made from a layout, and read as the layout says, or as metadata that was compared with it.

A damaged ``zarr.json`` can turn every stored number into another one (a chunk looked for under another
name reads as zeros), so no number depends on one: arrays are opened by the layout, without a request to the
store, and only where their chunks do not decode so (another writer may have chosen another compressor) by
the stored metadata, once that is known to mean the same.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, cast

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, StorePath

from cache_builder.format.codecs.record import Field
from cache_builder.format.errors import CorruptCacheError
from cache_builder.format.layout import ArraySpec
from cache_builder.format.store import read_bytes

# What Zarr and its codecs raise for bytes that are not what they wrote; OSError is left alone because a
# disk that fails to answer says nothing about the data. (Zarr's own errors are ValueErrors.)
DECODING_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError)

# Compressors carry their parameters in the bytes they write, so any of them reads back the same numbers.
_COMPRESSORS = {"blosc", "zstd", "gzip"}


_LEVEL = 5
_CHECKSUM_BYTES = 4


def create_array(group: zarr.Group, spec: ArraySpec) -> zarr.Array[Any]:
    """Create the array a spec describes, without chunks."""
    return group.create_array(
        spec.path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        filters=[TransposeCodec(order=spec.order)] if spec.order else None,
        serializer=BytesCodec(endian="little"),
        compressors=[compressor_of(spec), Crc32cCodec()],
        fill_value=0,
        dimension_names=spec.dimension_names,
    )


def compressor_of(spec: ArraySpec) -> BloscCodec:
    """What the chunks of a new array are compressed with."""
    return BloscCodec(cname="zstd", clevel=_LEVEL, shuffle=spec.shuffle, typesize=spec.dtype.itemsize)


def compressed_size(column: NDArray[Any], field: Field) -> int:
    """Bytes that a column of records [n] or [n, count] takes in one chunk."""
    shuffle = {"noshuffle": Blosc.NOSHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}[field.shuffle]
    blosc = Blosc(cname="zstd", clevel=_LEVEL, shuffle=shuffle)
    return len(blosc.encode(np.ascontiguousarray(column.T))) + _CHECKSUM_BYTES


def writing_zeros(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The array, writing also chunks that hold nothing but zeros: every chunk of a cache exists."""
    return array.with_config({"write_empty_chunks": True})


@lru_cache(maxsize=512)
def metadata_of(spec: ArraySpec) -> ArrayV3Metadata:
    """The metadata of an array as :func:`create_array` writes it."""
    return cast("ArrayV3Metadata", create_array(zarr.create_group(MemoryStore()), spec).metadata)


def array_over(store: Store, spec: ArraySpec, metadata: ArrayV3Metadata | None = None) -> zarr.Array[Any]:
    """An array for reading, by its layout or by metadata that is known; no request is made."""
    where = StorePath(store, spec.path)
    return zarr.Array(zarr.AsyncArray(metadata or metadata_of(spec), where))


def open_array(store: Store, spec: ArraySpec, where: str) -> zarr.Array[Any]:
    """Open an array for reading; :class:`CorruptCacheError` unless its metadata is the spec's."""
    raw = read_bytes(store, f"{spec.path}/zarr.json")
    try:
        if raw is None:
            raise ValueError("it is missing")
        check_metadata(json.loads(raw), spec)
        return zarr.open_array(store, path=spec.path, mode="r", zarr_format=3)
    except DECODING_ERRORS as error:
        raise CorruptCacheError(
            f"{where}: {spec.path}/zarr.json is not what this cache's manifest asks for ({error!r}); "
            "restore the file or rebuild the cache"
        ) from error


def check_metadata(metadata: dict[str, Any], spec: ArraySpec) -> None:
    """Raise one of ``DECODING_ERRORS`` where a ``zarr.json`` means other numbers than the spec's."""
    found = _essentials(metadata, spec.dtype.itemsize)
    for key, expected in expected_metadata(spec).items():
        if found[key] != expected:
            raise ValueError(f"{key} is {found[key]}, expected {expected}")


def expected_metadata(spec: ArraySpec) -> dict[str, Any]:
    """The parts of ``zarr.json`` that decide what the stored bytes mean."""
    codecs: list[Any] = [("bytes", {} if spec.dtype.itemsize == 1 else {"endian": "little"}), ("crc32c", {})]
    if spec.order:
        codecs.insert(0, ("transpose", {"order": list(spec.order)}))
    if spec.shards:
        sharding = {
            "chunk_shape": list(spec.chunks),
            "codecs": codecs,
            "index_codecs": [("bytes", {"endian": "little"}), ("crc32c", {})],
            "index_location": "end",
        }
        codecs = [("sharding_indexed", sharding)]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype.name,
        "chunk_grid": ("regular", {"chunk_shape": list(spec.shards or spec.chunks)}),
        "chunk_key_encoding": ("default", {"separator": "/"}),
        "fill_value": 0,
        "codecs": codecs,
    }


def _essentials(metadata: dict[str, Any], itemsize: int) -> dict[str, Any]:
    """``zarr.json`` in the form of :func:`expected_metadata`, with the defaults filled in."""
    encoding, configuration = _named(metadata["chunk_key_encoding"])
    return {
        **metadata,
        "chunk_grid": _named(metadata["chunk_grid"]),
        "chunk_key_encoding": (encoding, {"separator": "/"} | configuration),
        "codecs": _codecs(metadata["codecs"], itemsize),
    }


def _codecs(chain: list[Any], itemsize: int) -> list[Any]:
    named = [_named(codec) for codec in chain]
    return [
        (name, _configuration(name, values, itemsize)) for name, values in named if name not in _COMPRESSORS
    ]


def _configuration(name: str, values: dict[str, Any], itemsize: int) -> dict[str, Any]:
    if name == "bytes" and itemsize == 1:
        return {}  # one byte has no order; writers state or omit it
    if name == "sharding_indexed":
        return {"index_location": "end"} | values | {
            "codecs": _codecs(values["codecs"], itemsize),
            "index_codecs": _codecs(values["index_codecs"], 8),
        }  # fmt: skip
    return values


def _named(value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return value["name"], value.get("configuration") or {}
