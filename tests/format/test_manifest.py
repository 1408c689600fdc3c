"""The manifest: what it refuses, what its digests cover, how a resumed build compares it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xxhash

from cache_builder.format import FormatError, Manifest
from cache_builder.format.manifest import (
    CodecRequest,
    array_digest,
    build_digest,
    cache_digest,
    canonical_json,
    differing_settings,
)
from cache_builder.format.reader import parse_manifest
from tests.caches import synthetic_manifest


def body_with(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    body = copy.deepcopy(synthetic_manifest().model_dump(mode="json"))
    change(body)
    return body


def test_json_gives_the_same_manifest_back() -> None:
    manifest = synthetic_manifest()
    text = json.dumps(manifest.model_dump(mode="json"))
    assert parse_manifest(json.loads(text), "here") == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(surprise=1),
        lambda body: body["codec"].update(surprise=1),
        lambda body: body.pop("codec"),
        lambda body: body["data"].update(samples=0),
        lambda body: body["data"].update(classes=1),
        lambda body: body["data"].update(class_names=["one"]),
        lambda body: body["codec"].update(top_k=41),
        lambda body: body["codec"].update(top_k=40),
        lambda body: body["codec"].update(tail_rank=41),
        lambda body: body["codec"].update(tail_wide=9),
        lambda body: body["codec"].update(tail_step=0),
        lambda body: body["codec"].update(index_bits=12),
        lambda body: body["codec"].update(name="other"),
        lambda body: body["data"].update(classes=300, class_names=None),
        lambda body: body["teacher"].update(std=[0.5, 0.5, 0.0]),
        lambda body: body["teacher"].update(mean=[0.5, 0.5]),
        lambda body: body["teacher"].update(mean=[0.5, 0.5, float("nan")]),
        lambda body: body["views"].update(seed=2**64),
        lambda body: body["probe"].update(pairs=[[3, 0]]),
        lambda body: body["probe"].update(pairs=[[0, -1]]),
        lambda body: body.update(invalid_rows=[5, 3]),
        lambda body: body.update(invalid_rows=[100]),
        lambda body: body.update(name="../up"),
    ],
)
def test_what_does_not_hang_together_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(FormatError, match="here: the manifest is not valid"):
        parse_manifest(body_with(change), "here")


@pytest.mark.parametrize("body", [{}, [], None, {"format_version": 3}, {"format_version": "1"}])
def test_another_version_is_named(body: Any) -> None:
    with pytest.raises(FormatError, match=r"here: format version .* this release reads versions 1 to 2"):
        parse_manifest(body, "here")


def test_only_a_finished_cache_has_an_id() -> None:
    with pytest.raises(FormatError, match="not finished"):
        _ = synthetic_manifest().completed_id
    assert synthetic_manifest().model_copy(update={"cache_id": "ab"}).completed_id == "ab"


class TestDigests:
    def test_canonical_json_knows_no_order_and_no_spaces(self) -> None:
        value = {"b": [1, 2.5, "é"], "a": None}
        assert canonical_json(value) == '{"a":null,"b":[1,2.5,"é"]}'.encode()
        assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)

    def test_cache_id_is_what_the_specification_says(self) -> None:
        body = {"z": 1, "cache_id": "old", "a": [0.5]}
        expected = hashlib.sha256(b'{"a":[0.5],"z":1}\n{"one":1}\n{"two":2}').hexdigest()[:32]
        assert cache_digest(body, [b'{"one":1}', b'{"two":2}']) == expected

    def test_build_digest_ignores_results_alone(self) -> None:
        body = synthetic_manifest().model_dump(mode="json")
        assert build_digest(body | {"cache_id": "x", "invalid_rows": [1]}) == build_digest(body)
        assert build_digest(body | {"environment": {"torch": "0"}}) != build_digest(body)

    def test_array_digest_is_xxh64_of_little_endian_bytes(self) -> None:
        array = np.arange(6, dtype=np.int32).reshape(2, 3)
        expected = xxhash.xxh64_hexdigest(array.astype("<i4").tobytes())
        assert array_digest(array) == expected
        assert array_digest(array.astype(">i4")) == expected
        assert array_digest(np.asfortranarray(array)) == expected
        assert array_digest(np.zeros((0, 4), np.float32)) == xxhash.xxh64_hexdigest(b"")


class TestDifferingSettings:
    def test_equal_manifests_differ_in_nothing(self) -> None:
        assert differing_settings(synthetic_manifest(), synthetic_manifest()) == []

    def test_results_and_machine_may_differ(self) -> None:
        manifest = synthetic_manifest()
        fitted = manifest.codec.model_copy(update={"tail_step": 0.7, "tail_wide": 3})
        machine = {"product_version": "9", "environment": {"torch": "9"}, "digests": {"a": "b"}}
        changed = manifest.model_copy(update={**machine, "codec": fitted})
        assert differing_settings(manifest, changed) == []

    def test_settings_are_named_with_both_values(self) -> None:
        asked = synthetic_manifest(views=4, top_k=6)
        calibration = asked.calibration.model_copy(update={"requested": CodecRequest(top_k=6)})
        asked = asked.model_copy(update={"calibration": calibration})
        lines = differing_settings(synthetic_manifest(views=3), asked)
        assert lines == ["calibration.requested.top_k: null -> 6", "views.count: 3 -> 4"]

    def test_long_values_are_shortened(self) -> None:
        lines = differing_settings(synthetic_manifest(), synthetic_manifest(classes=41))
        assert [line.partition(":")[0] for line in lines] == ["data.class_names", "data.classes"]
        assert len(lines[0]) < 160


def test_manifests_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        synthetic_manifest().name = "other"  # type: ignore[misc]


def test_every_field_says_what_it_means() -> None:
    for model in (Manifest, *(field.annotation for field in Manifest.model_fields.values())):
        for name, field in getattr(model, "model_fields", {}).items():
            documented = field.description or name in {
                "format_version", "product_version", "name", "configuration", "data", "teacher",
                "views", "codec", "tiling", "calibration", "probe",
            }  # fmt: skip
            assert documented, f"{model}: {name} has no docstring"
