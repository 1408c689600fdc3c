"""Every ``zarr.json`` below the root, to the last bit: what a build writes there follows from the manifest.

Readers compare what decides the numbers (``open_array``). Here also the rest is compared, so that a damaged
file is noticed before another program stumbles over it. No sum of these files is stored, and none is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import zarr
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from cache_builder.format.arrays import (
    DECODING_ERRORS,
    check_metadata,
    compressor_of,
    create_array,
    expected_metadata,
)
from cache_builder.format.codecs.record import Shuffle
from cache_builder.format.layout import ArraySpec
from cache_builder.format.listing import Listing
from cache_builder.format.store import list_keys, read_many


def metadata_problems(store: Store, specs: list[ArraySpec], known: Listing | None = None) -> Iterator[str]:
    """What is wrong with the ``zarr.json`` of these arrays and of the groups that hold them, one a file.

    ``known``: what a listing says; an object that certainly is what we would write is not read.
    """
    by_key = {f"{spec.path}/zarr.json": spec for spec in specs}
    keys = sorted({*by_key, *(f"{path}/zarr.json" for path in groups_of(specs))})
    if known is not None and any(listed.tag for listed in known.values()):
        written = written_metadata(specs)
        keys = [key for key in keys if key not in known or not known[key].is_certainly(written[key])]
    for key, raw in zip(keys, read_many(store, keys), strict=True):
        spec = by_key.get(key)
        try:
            if raw is None:
                raise ValueError("it is missing")
            found = json.loads(raw)
            if spec is None:
                _check_group(found)
            else:
                check_metadata(found, spec)
                _check_rest(found, spec)
        except DECODING_ERRORS as error:
            yield f"{key} ({error})"


def written_metadata(specs: list[ArraySpec]) -> dict[str, bytes]:
    """The ``zarr.json`` of arrays and of the groups that hold them, as a build writes them, by key."""
    store = MemoryStore()
    group = zarr.create_group(store)
    for spec in specs:
        create_array(group, spec)
    group.create_group("commits")
    keys = list_keys(store, "")
    return {key: data or b"" for key, data in zip(keys, read_many(store, keys), strict=True)}


def groups_of(specs: Iterable[ArraySpec]) -> set[str]:
    """The groups below the root; tiles are committed in one that holds no array."""
    parts = [spec.path.split("/") for spec in specs]
    return {"commits"} | {"/".join(path[:depth]) for path in parts for depth in range(1, len(path))}


def _check_group(found: dict[str, Any]) -> None:
    _check_values(found, {"zarr_format": 3, "node_type": "group"})
    _check_optional(found, {"zarr_format", "node_type"}, {"attributes": {}, "consolidated_metadata": None})


def _check_rest(found: dict[str, Any], spec: ArraySpec) -> None:
    """What readers do not need: names, and how the chunks were compressed."""
    names = None if spec.dimension_names is None else list(spec.dimension_names)
    _check_optional(
        found,
        set(expected_metadata(spec)),
        {"attributes": {}, "dimension_names": names, "storage_transformers": []},
    )
    for codec in _chain(found["codecs"]):
        if set(codec) - {"name", "configuration"}:
            raise ValueError(f"codec {codec['name']} has other keys than a name and a configuration")
        # Another writer may have chosen zstd or gzip, whose parameters mean nothing to a reader.
        if codec["name"] == "blosc":
            _check_compressor(codec["configuration"], spec)
    for key in ("chunk_grid", "chunk_key_encoding"):
        if set(found[key]) - {"name", "configuration"}:
            raise ValueError(f"{key} has other keys than a name and a configuration")


def _check_compressor(found: dict[str, Any], spec: ArraySpec) -> None:
    expected = compressor_of(spec).to_dict()["configuration"]
    # Earlier releases shuffled fields that are not shuffled any more.
    if found["shuffle"] not in get_args(Shuffle) or {**found, "shuffle": spec.shuffle} != expected:
        raise ValueError(f"blosc has the configuration {found}, expected {expected}")


def _chain(codecs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The codecs of an array, those within its shards included."""
    for codec in codecs:
        yield codec
        configuration = codec.get("configuration") or {}
        for inner in ("codecs", "index_codecs"):
            yield from _chain(configuration.get(inner, []))


def _check_values(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if found[key] != value:
            raise ValueError(f"{key} is {found[key]}, expected {value}")


def _check_optional(found: dict[str, Any], required: set[str], optional: dict[str, Any]) -> None:
    """Keys that a writer may leave out have the one value that they can have, and there is no other key."""
    if stray := set(found) - required - set(optional):
        raise ValueError(f"it has the unknown key {sorted(stray)[0]!r}")
    _check_values(found, {key: value for key, value in optional.items() if found.get(key) is not None})
