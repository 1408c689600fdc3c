"""Calibration: the codec that a cache will use, fitted to some of the teacher's own outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache_builder.calibration.all_logits import AllLogitsCalibrator
from cache_builder.calibration.class_sketch import SketchCalibrator
from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope
from cache_builder.calibration.joint_sketch import JointSketchCalibrator
from cache_builder.calibration.masks import Masks
from cache_builder.calibration.topk_tail import ExactCalibrator, is_exact
from cache_builder.format.codecs.joint_sketch import MOST_CLASSES
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CodecRequest, Manifest

CALIBRATORS: dict[str, Calibrator] = {
    "topk-tail": ExactCalibrator(),
    "class-sketch": SketchCalibrator(),
    "joint-sketch": JointSketchCalibrator(),
    "all-logits": AllLogitsCalibrator(),
}
"""By codec name."""
# What compression leaves of a header, and of logits in 16 bits.
_HEADER_SHRINKS, _HALVES_SHRINK = 0.65, 0.9
# A sketch puts one class right and describes others.
_LEAST_SKETCHED = 3


def calibrator(name: str) -> Calibrator:
    """The calibrator of a codec; :class:`ConfigError` for a codec that caches can only be read with."""
    if name not in CALIBRATORS:
        raise ConfigError(
            f"--codec {name}: nothing fits this codec to a teacher; use {', '.join(CALIBRATORS)}"
        )
    return CALIBRATORS[name]


def usual_codec(classes: int, request: CodecRequest) -> str:
    """The codec where the user names none: every class one by one where they are few, else a sketch."""
    if is_exact(classes, request):
        return "topk-tail"
    return "joint-sketch" if classes <= MOST_CLASSES else "class-sketch"


def checked_request(classes: int, request: CodecRequest, codec: str | None) -> CodecRequest:
    """What the codec's calibrator will look at; ``codec``: None where the user names none.

    Raises :class:`ConfigError` for options that the named codec cannot follow.
    """
    if codec is not None:
        calibrator(codec).check(classes, request)
    return calibrator(codec or usual_codec(classes, request)).asked(classes, request)


def unfitted(classes: int, request: CodecRequest, codec: str | None = None) -> Calibration | None:
    """The codec, where nothing has to be fitted to a teacher without masks; None where something has."""
    return calibrator(codec or usual_codec(classes, request)).unfitted(classes, request)


def groups(manifest: Manifest, codec: str | None = None) -> list[tuple[int, range]]:
    """Rows and views whose logits :func:`fit` gets, as many views of each row."""
    chosen = calibrator(codec or usual_codec(manifest.classes, manifest.requested.codec))
    return chosen.groups(manifest)


def fit(
    logits: NDArray[np.float32], request: CodecRequest, codec: str | None = None, scope: Scope = ALONE
) -> Calibration:
    """Choose the settings and fit the codec to calibration logits [pairs, C]. Deterministic.

    ``scope``: which views of what cache the logits are. Without a name, few classes are stored one by one,
    where those that the teacher masks in every view do not count; unless the request says what may be lost
    and a sketch of what the teacher does not mask is smaller.
    """
    left = Masks.of(logits).left_count
    name = codec or usual_codec(left, request)
    found = calibrator(name).fit(logits, request, scope)
    if codec:
        return found
    if name == "topk-tail" and request.lose is not None and _LEAST_SKETCHED <= left < logits.shape[1]:
        sketch = calibrator(usual_codec(logits.shape[1], request)).fit(logits, request, scope)
        found = min(found, sketch, key=lambda fitted: _whole_bytes(fitted, scope))
    return _smaller(found, request, scope)


def _whole_bytes(found: Calibration, scope: Scope) -> float:
    """Bytes of a record, with its part of what a cache keeps once where its records are known."""
    header = sum(array.nbytes for array in found.codec.arrays.values()) * _HEADER_SHRINKS
    return found.bytes_per_view + (0.0 if scope.records is None else header / scope.records)


def _smaller(found: Calibration, request: CodecRequest, scope: Scope) -> Calibration:
    """All logits, where a cache has so few records that the sketch's header makes it the larger one."""
    classes = found.codec.width
    if found.section.chosen is None or scope.records is None:
        return found
    sketched = _whole_bytes(found, scope)
    dense = 2 * _HALVES_SHRINK * classes
    if sketched <= dense:
        return found
    said = (
        f"all {classes} logits are stored in 16 bits, some {dense:.0f} bytes a view: a sketch would take "
        f"{sketched:.0f}, most of it the basis, which {scope.records:,} records are too few for"
    )
    exact = CodecRequest(values=request.values, bytes_per_view=request.bytes_per_view)
    return replace(CALIBRATORS["all-logits"].fit(np.zeros((0, classes), np.float32), exact), told=(said,))
