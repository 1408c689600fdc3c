"""Manifests of format versions 1 and 2 (HISTORY.md), read as what version 3 says of the same cache.

Their sections moved; what is in them did not change its meaning, so keys are moved here and checked by the
sections of version 3, which refuse what is left over.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

_RANDOM = "random (seed "
# How the names of weights files end: these manifests keep a description of where the weights came from.
_WEIGHTS_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
_MATCHED = {"matched by name": "name", "matched by position": "position"}
_UNKNOWN = "unknown"


def as_version_3(body: dict[str, Any]) -> dict[str, Any]:
    """The JSON of version 3 that says the same; it keeps its ``format_version``, and lacks class names.

    Raises :class:`KeyError`, :class:`TypeError`, :class:`AttributeError` or :class:`ValueError` for what is
    no manifest of these versions.
    """
    rest = copy.deepcopy(body)
    data, teacher, calibration = rest.pop("data"), rest.pop("teacher"), rest.pop("calibration")
    classes, names = data.pop("classes"), data.pop("class_names")
    if names is not None and (len(names) != classes or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"data.class_names is not null, nor {classes} names")
    own = data.pop("own_class_names", None) or ()
    codec = rest.pop("codec")
    seen = {new: teacher.pop(old) for old, new in _INPUT.items()}
    decoding = data.pop("decoding", 1)
    requested = {"codec": calibration.pop("requested", {}), **_requested(data, teacher)}
    logits = {"kind": "logits", "width": classes, "named": names is not None, "codec": codec}
    sections = {
        "data": _joined(data, {"own_classes": len(own), "matched": _matched(rest["environment"])}),
        "teacher": teacher,
        "input": seen | {"kind": "image", "decoding": decoding},
        "outputs": {"logits": logits},
        "positions": {"kind": "one"},
        "calibration": calibration,
        "probe": _joined(rest.pop("probe"), {"kind": "pixels"}),
        "requested": requested,
    }
    return _joined(rest, sections)


_INPUT = {"input_size": "size", "mean": "mean", "std": "std", "interpolation": "interpolation"}


def _joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Both; a key of version 3 was none of the older ones."""
    if unknown := old.keys() & new.keys():
        raise ValueError(f"{sorted(unknown)} are no keys of this version")
    return old | new


def names_in_manifest(body: dict[str, Any]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The teacher's class names and the data's own, which these versions keep in the manifest."""
    names, own = body["data"]["class_names"], body["data"].get("own_class_names")
    return names and tuple(map(str, names)), own and tuple(map(str, own))


def _requested(data: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
    """What the user must have typed for what these versions describe in words; nothing for imports."""
    requested = {"data": data["spec"]}
    if teacher["weights_digest"] == _UNKNOWN:
        return requested
    members = teacher["spec"].split("+")
    return requested | {
        "teacher": [name.removeprefix("torchvision:") for name in members],
        "weights": [_weights(described) for described in teacher["weights"].split(" + ")],
    }


def _weights(described: str) -> str:
    if described.startswith(_RANDOM):
        return "random"
    is_file = described.endswith(_WEIGHTS_FILES) or Path(described).is_file()
    return described if is_file else "default"


def _matched(environment: dict[str, str]) -> str | None:
    told = environment.get("labels")
    if told is None:
        return None
    return next((how for words, how in _MATCHED.items() if told.endswith(words)), "file")
