"""Creating a cache: the manifest and the arrays that are written once, and no tiles.

A local one appears under its name in one rename. On an object store there is none, so a creation there is a
claim: an object that is written only where none is says what will be written; then come the arrays, last the
manifest, and the claim goes. One that was killed is continued by whoever has the same settings. What is not
named by the claim is somebody else's: it is refused before anything is written, and never touched.
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import zarr
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from cache_builder.format.ahead import batched_by
from cache_builder.format.arrays import create_array, writing_zeros
from cache_builder.format.by_block import HeaderArray, digest_of, regrouped
from cache_builder.format.conditional import (
    Tagged,
    create_object,
    first_keys,
    is_object,
    parent_stores,
    read_tagged,
    replace_object,
)
from cache_builder.format.durable import take_name
from cache_builder.format.errors import ConfigError, FormatError, StorageError
from cache_builder.format.layout import ROOT_ATTRIBUTE, ArraySpec, digest_array, header_specs, record_arrays
from cache_builder.format.locations import followed, is_remote, local_path
from cache_builder.format.manifest import (
    FORMAT_VERSION,
    Manifest,
    differing_settings,
    parse_manifest,
)
from cache_builder.format.owned import CLAIM_KEY, LEASE_KEY, is_own, removed
from cache_builder.format.root import read_manifest
from cache_builder.format.store import (
    delete_object,
    list_keys,
    open_store,
    read_bytes,
    read_many,
    write_durably,
    write_many,
)

# Zarr's blosc stops at 2 GiB; well below it one chunk still fits beside others in memory.
MAX_CHUNK_BYTES = 2**29
_ROOT_KEY = "zarr.json"
_NAMED = 3
_WRITTEN_AT_ONCE = 2**25
"""About so many bytes of the header are in flight to a remote store."""
_STORE_MARKS = (_ROOT_KEY, ".zgroup", CLAIM_KEY)


def header_digests(arrays: Mapping[str, HeaderArray]) -> dict[str, str]:
    """The manifest's ``digests`` for the arrays that are written once."""
    return {path: digest_of(array) for path, array in sorted(arrays.items())}


def create(location: str | Path, manifest: Manifest, arrays: Mapping[str, HeaderArray]) -> bytes:
    """Create a store with its manifest and header arrays, and no tiles; continue a creation that was killed.

    Whatever is created is of the newest format version. Gives the bytes of its ``zarr.json``. Raises
    :class:`ConfigError` where something else is in the way or the arrays do not fit the manifest.
    """
    if manifest.format_version != FORMAT_VERSION:
        raise ConfigError(f"caches are created in format version {FORMAT_VERSION} alone")
    specs = _checked_header(manifest, arrays)
    _check_chunk_sizes(manifest)
    header = _Header(manifest, arrays, specs)
    if is_remote(location):
        _create_remote(location, manifest, header)
    else:
        _create_folder(location, header)
    return header.root


def _checked_header(manifest: Manifest, arrays: Mapping[str, HeaderArray]) -> list[ArraySpec]:
    specs = header_specs(manifest, {path: array.size for path, array in arrays.items()})
    if {spec.path for spec in specs} != set(arrays):
        raise ConfigError(
            f"the header arrays are {', '.join(sorted(arrays))}, the manifest asks for "
            f"{', '.join(sorted(spec.path for spec in specs))}"
        )
    for spec in specs:
        array = arrays[spec.path]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise ConfigError(
                f"header array {spec.path} is {array.dtype} {list(array.shape)}, "
                f"the manifest asks for {spec.dtype} {list(spec.shape)}"
            )
    if manifest.digests != header_digests(arrays):
        raise ConfigError("the manifest's digests are not those of the header arrays")
    return specs


def _check_chunk_sizes(manifest: Manifest) -> None:
    for spec in record_arrays(manifest):
        size = math.prod(spec.chunks) * spec.dtype.itemsize
        if size > MAX_CHUNK_BYTES:
            raise ConfigError(
                f"a chunk of {spec.path} would have {size:,} bytes, more than {MAX_CHUNK_BYTES:,}: "
                f"use fewer than {manifest.tiling.rows} rows per tile, or a smaller --top-k"
            )


class _Header:
    """Every object of a cache without tiles. Chunks are made one at a time: long arrays are nowhere whole."""

    def __init__(self, manifest: Manifest, arrays: Mapping[str, HeaderArray], specs: list[ArraySpec]) -> None:
        self._arrays, self._store = arrays, MemoryStore()
        group = zarr.create_group(self._store)
        self._stored = {spec: writing_zeros(create_array(group, spec)) for spec in specs}
        for spec in [*record_arrays(manifest), digest_array(manifest)]:
            create_array(group, spec)
        group.create_group("commits")
        group.update_attributes({ROOT_ATTRIBUTE: manifest.model_dump(mode="json")})
        keys = list_keys(self._store, "")
        found = dict(zip(keys, read_many(self._store, keys), strict=True))
        self.root = found.pop(_ROOT_KEY) or b""
        """The object that makes it a cache."""
        self._metadata = {key: data or b"" for key, data in found.items()}

    @property
    def keys(self) -> list[str]:
        """Of all of its objects."""
        return sorted(
            [_ROOT_KEY, *self._metadata, *(key for spec in self._stored for key in spec.chunk_keys())]
        )

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """All but the root, by key."""
        yield from self._metadata.items()
        for spec, stored in self._stored.items():
            if not math.prod(spec.shape):
                continue
            first = 0
            parts = regrouped(self._arrays[spec.path], spec.chunks[0])
            for key, part in zip(spec.chunk_keys(), parts, strict=True):
                stored[first : first + len(part)] = part
                first += len(part)
                yield key, read_bytes(self._store, key) or b""
                delete_object(self._store, key)


def _create_folder(location: str | Path, header: _Header) -> None:
    root = followed(local_path(location))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConfigError(f"{location} already exists: choose another --out or remove it")
    root.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two builders that start together must not write into one folder.
    making = root.with_name(f".{root.name}.{uuid.uuid4().hex}.creating")
    making.mkdir()
    try:
        store = open_store(making, read_only=False)
        for key, data in header.objects():
            write_durably(store, key, data)
        write_durably(store, _ROOT_KEY, header.root)
        take_name(making, root)
    except BaseException:
        removed(making)
        raise


def _create_remote(location: str | Path, manifest: Manifest, header: _Header) -> None:
    store = open_store(location, read_only=False)
    _claim(store, location, manifest, header.keys)
    for batch in batched_by(header.objects(), lambda item: len(item[1]), _WRITTEN_AT_ONCE):
        write_many(store, dict(batch))
    if create_object(store, _ROOT_KEY, header.root) is None:
        raise ConfigError(
            f"{location}: another process created a cache here meanwhile: run the command again"
        )
    delete_object(store, CLAIM_KEY)


@dataclass(frozen=True)
class Claim:
    """The object that says: a cache of these settings is being created here, and these keys are its own."""

    manifest: Manifest
    keys: tuple[str, ...]
    """What the creation writes, besides the claim itself."""
    by: str
    """Who began, for people."""

    @classmethod
    def read(cls, data: bytes, where: str) -> Self:
        """From the stored object; :class:`ConfigError` where it is none of ours."""
        try:
            body = json.loads(data)
            keys = tuple(str(key) for key in body["keys"])
            if not all(map(is_own, keys)):
                raise ValueError("it names objects that are none of a cache")
            return cls(parse_manifest(body["manifest"], where), keys, str(body["by"]))
        except (ValueError, TypeError, KeyError, FormatError) as error:
            raise ConfigError(
                f"{where}/{CLAIM_KEY} is damaged or of another release ({error!r}), so nobody knows what is "
                "ours there: choose another --out, or look and delete what is there yourself"
            ) from error

    def to_bytes(self) -> bytes:
        """The object as it is stored."""
        body = {"manifest": self.manifest.model_dump(mode="json"), "keys": self.keys, "by": self.by}
        return json.dumps(body, indent=1).encode()


def manifest_there(location: str | Path, wanted: Manifest | None = None) -> Manifest | None:
    """The manifest of the cache at a location; None where a cache may be created.

    Of a URL where nothing is, one listing tells it. Raises as :func:`check_unclaimed` does for a URL, and as
    :func:`read_manifest` for a store that is something else.
    """
    if is_remote(location):
        is_empty = not set(first_keys(open_store(location, read_only=True), 2)) - {LEASE_KEY}
        stored = None if is_empty else read_manifest(location)
        if stored is None:
            check_unclaimed(location, wanted, is_empty=is_empty)
        return stored
    return read_manifest(location)


def check_unclaimed(location: str | Path, wanted: Manifest | None = None, *, is_empty: bool = False) -> None:
    """Raise :class:`ConfigError` where a URL holds anything but a creation that was killed.

    ``wanted``: the settings that the creation must have been begun with; None = not known yet. ``is_empty``:
    the caller has just seen that nothing is there, so that only what is around it is looked at.
    """
    store = open_store(location, read_only=True)
    if str(location) not in _SURROUNDINGS_SEEN:
        _check_surroundings(store, location)
        _SURROUNDINGS_SEEN.add(str(location))
    if not is_empty:
        _seen_alone(store, location, wanted)


_SURROUNDINGS_SEEN: set[str] = set()
"""Locations around which this process found nothing: a build looks several times whether its own is free."""


def _seen_alone(store: Store, location: str | Path, wanted: Manifest | None) -> Tagged | None:
    """The claim where there is one, besides which nothing else may be; one listing tells where nothing is."""
    keys = first_keys(store, _NAMED + 3)  # the claim comes first, but for the lease
    seen = read_tagged(store, CLAIM_KEY) if CLAIM_KEY in keys else None
    claim = None if seen is None else Claim.read(seen.data, str(location))
    own = {CLAIM_KEY, LEASE_KEY} if claim is None else {CLAIM_KEY, LEASE_KEY, *claim.keys}
    _check_nothing_else(location, own, keys if claim is None else first_keys(store, len(own) + _NAMED + 1))
    if claim is not None and wanted is not None:
        _check_settings(location, claim, wanted)
    return seen


def _claim(store: Store, location: str | Path, manifest: Manifest, keys: Collection[str]) -> None:
    """Make the prefix ours, or go on with what was begun there by the same settings."""
    if str(location) not in _SURROUNDINGS_SEEN:
        _check_surroundings(store, location)
    seen = _seen_alone(store, location, manifest)
    by = f"process {os.getpid()} on {socket.gethostname()}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if seen is None:
        written = create_object(store, CLAIM_KEY, Claim(manifest, tuple(keys), by).to_bytes())
    else:
        written = _taken_over(store, seen, Claim(manifest, tuple(keys), by), str(location))
    if written is None:
        raise ConfigError(f"{location}: another process creates a cache here at this moment: run again later")


def _taken_over(store: Store, seen: Tagged, own: Claim, where: str) -> Tagged | None:
    """The claim of a killed creation becomes ours; what it wrote and we do not is removed."""
    before = Claim.read(seen.data, where)
    both = Claim(own.manifest, tuple(sorted({*before.keys, *own.keys})), own.by)
    written = replace_object(store, CLAIM_KEY, both.to_bytes(), seen)
    if written is not None:
        for key in sorted({*before.keys} - {*own.keys}):
            delete_object(store, key)
    return written


def _check_settings(location: str | Path, claim: Claim, wanted: Manifest) -> None:
    differing = differing_settings(claim.manifest, wanted)
    if differing:
        raise ConfigError(
            f"{location}: a cache of other settings was begun here by {claim.by}, and not finished (begun -> "
            "asked for):\n  "
            + "\n  ".join(differing)
            + "\nuse those settings to continue it, choose another "
            f"--out, or delete what is below {location} yourself"
        )


def _check_surroundings(store: Store, location: str | Path) -> None:
    if is_object(store):
        raise ConfigError(f"{location} is an object, so no cache can lie below it: choose another --out")
    for parent in parent_stores(store):
        mark = _mark_of_store(parent)
        if mark is not None:
            raise ConfigError(
                f"{location} lies within another Zarr store ({parent} has {mark}): choose another --out"
            )


def _mark_of_store(store: Store) -> str | None:
    """What says that a folder is a Zarr store, or will be one; None also where we may not look."""
    try:
        found = read_many(store, list(_STORE_MARKS))
    except StorageError as error:
        if error.waiting_helps:
            raise
        return None  # often only the prefix itself is ours to read; where that fails, its own listing tells
    return next((mark for mark, data in zip(_STORE_MARKS, found, strict=True) if data is not None), None)


def _check_nothing_else(location: str | Path, allowed: Collection[str], there: list[str]) -> None:
    others = [key for key in there if key not in allowed]
    if others:
        more = " and more" if len(others) > _NAMED else ""
        raise ConfigError(
            f"{location} holds {', '.join(others[:_NAMED])}{more}, which is no cache; nothing was touched: "
            "choose another --out"
        )
