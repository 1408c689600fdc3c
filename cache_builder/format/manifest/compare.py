"""In what two manifests differ: settings for people, and whether two stores are one build."""

from __future__ import annotations

import json
import re
from typing import Any

from cache_builder.format.manifest.model import Manifest

# What may differ between the command that started a build and the one that resumes it: results of the
# build itself, how its settings were typed, and a description of the machine.
_NOT_SETTINGS = re.compile(
    r"format_version|product_version|environment\..*|data\.(matched|own_classes)|calibration\..*|probe\..*"
    r"|outputs\.\w+\.(named|codec\..*)|requested\.(?!codec\.).*|digests\..*|invalid_rows|cache_id"
)


def differing_settings(stored: Manifest, wanted: Manifest) -> list[str]:
    """The settings in which two manifests differ, one ``path: stored -> wanted`` line each."""
    old, new = _settings(stored), _settings(wanted)
    paths = [path for path in old | new if old.get(path) != new.get(path)]
    return [f"{path}: {_shorten(old.get(path))} -> {_shorten(new.get(path))}" for path in sorted(paths)]


def differing_names(stored: tuple[str, ...] | None, wanted: tuple[str, ...] | None) -> list[str]:
    """The same for the names of the teacher's classes, which are arrays of the store."""
    if stored == wanted:
        return []
    return [f"class names: {_shorten(stored and list(stored))} -> {_shorten(wanted and list(wanted))}"]


def is_same_build(one: Manifest, two: Manifest) -> bool:
    """Whether two manifests are of one build, be their stores of different versions or not finished."""
    # Older versions have the names of classes in their JSON, so that there are no digests to compare.
    with_names = min(one.format_version, two.format_version) >= 3
    return _build(one, with_names) == _build(two, with_names)


def _build(manifest: Manifest, with_names: bool) -> dict[str, Any]:
    results = {"format_version", "invalid_rows", "cache_id", "digests"}
    digests = {version_3_path(path): digest for path, digest in manifest.digests.items()}
    kept = {path: digest for path, digest in digests.items() if with_names or "class_name" not in path}
    return manifest.model_dump(mode="json", exclude=results) | {"digests": kept}


def version_3_path(path: str) -> str:
    """The path that version 3 gives an array of an older version; its own paths are given back."""
    return re.sub(r"^(codec|records)/(\w+)$", r"\1/logits/\2", path)


def _settings(manifest: Manifest) -> dict[str, Any]:
    flat = _flatten(manifest.model_dump(mode="json"))
    return {path: value for path, value in flat.items() if not _NOT_SETTINGS.fullmatch(path)}


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
