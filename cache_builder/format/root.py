"""The root of a store, ``zarr.json``: whether there is a cache at a location, and which one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache_builder.format.errors import CorruptCacheError, FormatError
from cache_builder.format.layout import ROOT_ATTRIBUTE
from cache_builder.format.manifest import Manifest, parse_manifest
from cache_builder.format.store import open_store, read_bytes

ROOT_KEY = "zarr.json"


def read_manifest(location: str | Path) -> Manifest | None:
    """The manifest at a location; None where there is no store.

    Raises :class:`FormatError` for a store that is something else or of an unknown version.
    """
    body = read_body(location)
    return None if body is None else parse_manifest(body, where=str(location))


def read_body(location: str | Path) -> dict[str, Any] | None:
    """The manifest's JSON as stored; None where there is no store. Raises as :func:`read_manifest`."""
    raw = read_root(location)
    return None if raw is None else body_of(raw, location)


def read_root(location: str | Path) -> bytes | None:
    """The bytes of ``zarr.json``, which change with every cache; None where there is no store."""
    return read_bytes(open_store(location, read_only=True), ROOT_KEY)


def body_of(raw: bytes, location: str | Path) -> dict[str, Any]:
    """The manifest's JSON in the bytes of ``zarr.json``. Raises as :func:`read_manifest`."""
    try:
        root = json.loads(raw)
        group = (root["zarr_format"], root["node_type"]) == (3, "group")
        attributes = root.get("attributes", {})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptCacheError(f"{location}: zarr.json is damaged ({error!r})") from error
    if not group or not isinstance(attributes, dict) or ROOT_ATTRIBUTE not in attributes:
        raise FormatError(
            f"{location} is a Zarr store, but not a kdcache: its root is no group with the attribute "
            f"{ROOT_ATTRIBUTE!r}"
        )
    body: dict[str, Any] = attributes[ROOT_ATTRIBUTE]
    return body
