"""Manifests of versions 1 and 2 are read as version 3, and refused where they are none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache_builder.format import FormatError, open_cache
from cache_builder.format.manifest import OnePosition, parse_manifest
from cache_builder.format.root import read_body
from tests.format.test_golden import GOLDEN


def stored(name: str = "v2/exact.zarr") -> dict[str, Any]:
    return copy.deepcopy(read_body(GOLDEN / name) or {})


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("v[12]/*.zarr")), ids=lambda path: "/".join(path.parts[-2:])
)
def test_they_say_what_version_3_says(path: Path) -> None:
    cache, body = open_cache(path), read_body(path) or {}
    manifest = cache.manifest
    assert manifest.format_version == body["format_version"]
    assert manifest.positions == OnePosition()
    assert (manifest.classes, manifest.data.samples) == (body["data"]["classes"], body["data"]["samples"])
    assert manifest.input.size == body["teacher"]["input_size"]
    assert manifest.codec.model_dump(mode="json") == body["codec"]
    assert manifest.logits.named == (body["data"]["class_names"] is not None)
    names = body["data"]["class_names"]
    assert cache.class_names == (names and tuple(names))


def test_what_was_told_in_words_is_what_was_asked() -> None:
    body = stored()
    body["teacher"] |= {
        "spec": "torchvision:vit_l_16+timm:x", "weights": "random (seed 3) + w.pth", "weights_digest": "ab",
    }  # fmt: skip
    body["environment"]["labels"] = "10 classes, matched by position"
    body["calibration"]["requested"]["top_k"] = 4
    manifest = parse_manifest(body, "here")
    assert manifest.requested.teacher == ("vit_l_16", "timm:x")
    assert manifest.requested.weights == ("random", "w.pth")
    assert manifest.requested.codec.top_k == 4
    assert manifest.data.matched == "position"
    body["teacher"]["weights_digest"] = "unknown"
    assert parse_manifest(body, "here").requested.teacher == ()


def test_they_do_not_change_the_json_they_were_read_from() -> None:
    body = stored()
    before = copy.deepcopy(body)
    parse_manifest(body, "here")
    assert body == before


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(surprise=1),
        lambda body: body["codec"].update(surprise=1),
        lambda body: body["data"].update(surprise=1),
        lambda body: body["teacher"].update(surprise=1),
        lambda body: body.pop("codec"),
        lambda body: body.pop("data"),
        lambda body: body.update(data=3),
        lambda body: body["data"].update(class_names=["one"]),
        lambda body: body["data"].update(class_names=[1, 2, 3, 4, 5]),
        lambda body: body["data"].pop("class_names"),
        lambda body: body["data"].update(classes=1),
        lambda body: body["teacher"].update(std=[0.5, 0.5, 0.0]),
        lambda body: body["probe"].update(pairs=[[3, 0]]),
        lambda body: body.update(outputs={}),
    ],
)
def test_what_is_none_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    body = stored()
    change(body)
    with pytest.raises(FormatError, match="here: the manifest is not valid"):
        parse_manifest(body, "here")


def test_the_first_version_has_one_codec() -> None:
    with pytest.raises(FormatError, match="version 1 has no codec class-sketch"):
        parse_manifest(stored("v2/sketch.zarr") | {"format_version": 1}, "here")
