"""What the digests of manifests, caches and arrays cover."""

from __future__ import annotations

import hashlib

import numpy as np
import xxhash

from cache_builder.format.manifest import array_digest, build_digest, cache_digest, canonical_json
from tests.caches import synthetic_manifest


def test_canonical_json_knows_no_order_and_no_spaces() -> None:
    value = {"b": [1, 2.5, "é"], "a": None}
    assert canonical_json(value) == '{"a":null,"b":[1,2.5,"é"]}'.encode()
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_cache_id_is_what_the_specification_says() -> None:
    body = {"z": 1, "cache_id": "old", "a": [0.5]}
    expected = hashlib.sha256(b'{"a":[0.5],"z":1}\n{"one":1}\n{"two":2}').hexdigest()[:32]
    assert cache_digest(body, [b'{"one":1}', b'{"two":2}']) == expected


def test_build_digest_ignores_results_alone() -> None:
    body = synthetic_manifest().model_dump(mode="json")
    assert build_digest(body | {"cache_id": "x", "invalid_rows": [1]}) == build_digest(body)
    assert build_digest(body | {"environment": {"torch": "0"}}) != build_digest(body)


def test_array_digest_is_xxh64_of_little_endian_bytes() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    expected = xxhash.xxh64_hexdigest(array.astype("<i4").tobytes())
    assert array_digest(array) == expected
    assert array_digest(array.astype(">i4")) == expected
    assert array_digest(np.asfortranarray(array)) == expected
    assert array_digest(np.zeros((0, 4), np.float32)) == xxhash.xxh64_hexdigest(b"")
