"""How a model wants its pictures, from the files that hubs keep beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES = ("preprocessor_config.json", "preprocessor.json", "config.json")
# Pillow's numbers, as transformers writes them.
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def described_beside(path: Path) -> dict[str, Any]:
    """Fields of ``Preprocessing`` that a file beside the weights states, and ``origin``; ``{}`` for none."""
    folder = path if path.is_dir() else path.parent
    for name in _FILES:
        try:
            body = json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue
        found = described_by(body) if isinstance(body, dict) else {}
        if found:
            return found | {"origin": f"from {name} beside the weights"}
    return {}


def described_by(body: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``Preprocessing`` in timm's ``pretrained_cfg`` or transformers' processor configuration."""
    inner = body.get("pretrained_cfg", body)
    if not isinstance(inner, Mapping):
        return {}
    found = _timm(inner) if "mean" in inner else _transformers(inner)
    return {name: value for name, value in found.items() if value is not None}


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    size = config.get("input_size")
    return {
        "mean": config.get("mean"),
        "std": config.get("std"),
        "input_size": size[-1] if isinstance(size, list | tuple) and size else None,
        "interpolation": config.get("interpolation"),
        "crop_fraction": config.get("crop_pct"),
    }


def _transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    if "image_mean" not in config and config.get("do_normalize") is not False:
        return {}
    plain = config.get("do_normalize") is False
    crop, size = _side(config.get("crop_size")), _side(config.get("size"))
    crops = bool(config.get("do_center_crop", crop is not None)) and crop is not None
    return {
        "mean": [0.0] * 3 if plain else config.get("image_mean"),
        "std": [1.0] * 3 if plain else config.get("image_std"),
        "input_size": crop if crops else size,
        "interpolation": _RESAMPLING.get(config.get("resample", -1)),
        "crop_fraction": crop / size if crops and crop and size and crop <= size else None,
    }


def _side(value: Any) -> int | None:
    """``{"shortest_edge": 224}``, ``{"height": 224, "width": 224}`` or 224."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("shortest_edge", "height") if key in value), None)
    return value if isinstance(value, int) else None
