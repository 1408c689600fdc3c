"""What is a setting, and which stores are one build."""

from __future__ import annotations

from cache_builder.format.manifest import (
    CodecRequest,
    RequestSection,
    differing_names,
    differing_settings,
    is_same_build,
)
from tests.caches import synthetic_manifest


def test_equal_manifests_differ_in_nothing() -> None:
    assert differing_settings(synthetic_manifest(), synthetic_manifest()) == []


def test_results_and_machine_may_differ() -> None:
    manifest = synthetic_manifest()
    fitted = manifest.codec.model_copy(update={"tail_step": 0.7, "tail_wide": 3})
    machine = {"product_version": "9", "environment": {"torch": "9"}, "digests": {"a": "b"}}
    changed = manifest.model_copy(update=machine).with_codec(fitted)
    assert differing_settings(manifest, changed) == []


def test_settings_are_named_with_both_values() -> None:
    asked = synthetic_manifest(views=4, top_k=6)
    requested = RequestSection(teacher=("typed",), codec=CodecRequest(top_k=6))
    asked = asked.model_copy(update={"requested": requested})
    lines = differing_settings(synthetic_manifest(views=3), asked)
    assert lines == ["requested.codec.top_k: null -> 6", "views.count: 3 -> 4"]


def test_long_values_are_shortened() -> None:
    names = tuple(f"class {i}" for i in range(40))
    (line,) = differing_names(names, (*names, "one more"))
    assert line.startswith('class names: ["class 0", ')
    assert len(line) < 160
    assert differing_names(names, names) == []


def test_a_build_is_the_same_whatever_its_results_and_the_version_of_its_store() -> None:
    manifest = synthetic_manifest().model_copy(update={"digests": {"codec/logits/mean": "a", "x": "b"}})
    older = {"format_version": 2, "digests": {"codec/mean": "a", "x": "b"}}
    assert is_same_build(manifest, manifest.model_copy(update={"cache_id": "c", "invalid_rows": (1,)}))
    assert is_same_build(manifest, manifest.model_copy(update=older))
    assert not is_same_build(manifest, manifest.model_copy(update={"digests": {"x": "b"}}))
    assert not is_same_build(manifest, manifest.model_copy(update={"environment": {"torch": "9"}}))


def test_other_names_of_classes_are_another_build_where_both_stores_have_digests_of_them() -> None:
    path = "samples/class_name_bytes"
    one, two = (synthetic_manifest().model_copy(update={"digests": {path: digest}}) for digest in ("1", "2"))
    assert is_same_build(one, one)
    assert not is_same_build(one, two)
    older = one.model_copy(update={"format_version": 2, "digests": {}})
    assert is_same_build(older, two)
