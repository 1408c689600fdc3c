"""The manifest: what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from cache_builder.format import FormatError
from cache_builder.format.manifest import (
    CalibrationSection,
    CodecRequest,
    DataSection,
    GridPositions,
    ImageInput,
    LogitsOutput,
    PixelsProbe,
    RaggedPositions,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
    parse_manifest,
)
from tests.caches import synthetic_manifest


def body_with(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    body = copy.deepcopy(synthetic_manifest().model_dump(mode="json"))
    change(body)
    return body


def codec_of(body: dict[str, Any]) -> dict[str, Any]:
    codec: dict[str, Any] = body["outputs"]["logits"]["codec"]
    return codec


def test_json_gives_the_same_manifest_back() -> None:
    manifest = synthetic_manifest()
    text = json.dumps(manifest.model_dump(mode="json"))
    assert parse_manifest(json.loads(text), "here") == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(surprise=1),
        lambda body: body["outputs"]["logits"].update(surprise=1),
        lambda body: codec_of(body).update(surprise=1),
        lambda body: body.pop("outputs"),
        lambda body: body["outputs"].pop("logits"),
        lambda body: body["outputs"].update({"../up": body["outputs"]["logits"]}),
        lambda body: body["outputs"]["logits"].update(kind="features"),
        lambda body: body["outputs"]["logits"].pop("codec"),
        lambda body: body["outputs"]["logits"].update(width=1),
        lambda body: body["outputs"]["logits"].update(width=300),
        lambda body: body["data"].update(samples=0),
        lambda body: body["data"].update(matched="guess"),
        lambda body: codec_of(body).update(top_k=41),
        lambda body: codec_of(body).update(top_k=40),
        lambda body: codec_of(body).update(tail_rank=41),
        lambda body: codec_of(body).update(tail_wide=9),
        lambda body: codec_of(body).update(tail_step=0),
        lambda body: codec_of(body).update(index_bits=12),
        lambda body: codec_of(body).update(name="other"),
        lambda body: body["input"].update(kind="sound"),
        lambda body: body["input"].update(std=[0.5, 0.5, 0.0]),
        lambda body: body["input"].update(mean=[0.5, 0.5]),
        lambda body: body["input"].update(mean=[0.5, 0.5, float("nan")]),
        lambda body: body["positions"].update(kind="two"),
        lambda body: body.update(positions={"kind": "grid", "shape": [0, 3]}),
        lambda body: body["views"].update(seed=2**64),
        lambda body: body["probe"].update(pairs=[[3, 0]]),
        lambda body: body["probe"].update(pairs=[[0, -1]]),
        lambda body: body["probe"].update(kind="none"),
        lambda body: body.update(invalid_rows=[5, 3]),
        lambda body: body.update(invalid_rows=[100]),
        lambda body: body.update(name="../up"),
    ],
)
def test_what_does_not_hang_together_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(FormatError, match="here: the manifest is not valid"):
        parse_manifest(body_with(change), "here")


@pytest.mark.parametrize("body", [{}, [], None, {"format_version": 4}, {"format_version": "1"}])
def test_another_version_is_named(body: Any) -> None:
    with pytest.raises(FormatError, match=r"here: format version .* this release reads versions 1 to 3"):
        parse_manifest(body, "here")


def test_only_a_finished_cache_has_an_id() -> None:
    with pytest.raises(FormatError, match="not finished"):
        _ = synthetic_manifest().completed_id
    assert synthetic_manifest().model_copy(update={"cache_id": "ab"}).completed_id == "ab"


def test_manifests_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        synthetic_manifest().name = "other"  # type: ignore[misc]


def test_every_field_says_what_it_means() -> None:
    sections = (DataSection, TeacherSection, ImageInput, LogitsOutput, GridPositions, RaggedPositions)
    others = (ViewsSection, TilingSection, CalibrationSection, CodecRequest, PixelsProbe, RequestSection)
    for model in (*sections, *others):
        for name, field in model.model_fields.items():
            assert field.description or name == "kind", f"{model}: {name} has no docstring"
