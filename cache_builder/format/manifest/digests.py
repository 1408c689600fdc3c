"""Digests of manifests, caches and arrays, and the JSON that they are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from cache_builder.format.by_block import digest_of


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def build_digest(body: dict[str, Any]) -> str:
    """What ties tiles to their build: SHA-256 (32 hex digits) over the manifest JSON without its results."""
    settled = {key: value for key, value in body.items() if key not in ("cache_id", "invalid_rows")}
    return hashlib.sha256(canonical_json(settled)).hexdigest()[:32]


def cache_digest(body: dict[str, Any], commits: Iterable[bytes]) -> str:
    """The cache_id: SHA-256 (32 hex digits) over the manifest JSON without its id and all commit objects.

    ``body``: the JSON as stored, so that a field a later release adds does not change an old cache's id.
    ``commits``: their bytes, in tile order.
    """
    settled = {key: value for key, value in body.items() if key != "cache_id"}
    digest = hashlib.sha256(canonical_json(settled))
    for commit in commits:
        digest.update(b"\n" + commit)
    return digest.hexdigest()[:32]


def array_digest(array: NDArray[Any]) -> str:
    """xxh64 (hex) of an array's little-endian C-order bytes."""
    return digest_of(array)
