"""What a student is given in the place of a live teacher's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.encodings import even_tail, top_log_probs
from benchmarks.live_logits import Floats
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Scope
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.format.manifest import CodecRequest

_FITTED, _PART = 512, 128
"""Samples that a codec is fitted to, and that are encoded together."""

Make = Callable[[Floats], tuple[Floats, float]]


@dataclass(frozen=True)
class Teaching:
    """One of them, by the name that the table has."""

    name: str
    make: Make | None
    """Logits [views, N, C] to what is decoded of them, and bytes a view; None: labels alone."""
    views: int | None = None
    """How many of the views it has; None: all of them."""

    def given(self, logits: Floats) -> tuple[Floats | None, float]:
        """What a student sees of a teacher's logits, and the bytes of a view."""
        return (None, 0.0) if self.make is None else self.make(logits[: self.views])


def dense(logits: Floats) -> tuple[Floats, float]:
    """As they are; what fp16 takes."""
    return logits, 2.0 * logits.shape[2]


def ours(lose: float) -> Make:
    """Decoded from records that lose so much."""

    def make(logits: Floats) -> tuple[Floats, float]:
        views, _, classes = logits.shape
        by_sample = np.ascontiguousarray(logits.swapaxes(0, 1))
        flat = by_sample.reshape(-1, classes)
        scope = Scope(views, len(flat))
        codec = calibrate.fit(flat[: _FITTED * views], CodecRequest(lose=lose), "joint-sketch", scope).codec
        starts = range(0, len(flat), _PART * views)
        parts = [codec.encode(flat[start : start + _PART * views], views) for start in starts]
        size = stored_bytes(codec.pack(parts[0]), codec, views)
        decoded = np.concatenate([codec.decode(part) for part in parts])
        return np.ascontiguousarray(decoded.reshape(by_sample.shape).swapaxes(0, 1)), size

    return make


def largest(count: int) -> Make:
    """The largest alone, all others alike, as published caches keep them (fp16 and int16)."""

    def make(logits: Floats) -> tuple[Floats, float]:
        flat = logits.reshape(-1, logits.shape[2])
        decoded = even_tail(*top_log_probs(flat, count), logits.shape[2])
        return decoded.reshape(logits.shape), 4.0 * count

    return make


LABELS = Teaching("hard labels", None)
DENSE = Teaching("dense logits", dense)
ONE_VIEW = Teaching("dense, one fixed view", dense, views=1)
"""One picture of each sample is seen in every epoch."""


def losing(lose: float, views: int | None = None) -> Teaching:
    """Our record of a share of the variance lost."""
    return Teaching(f"ours, .{round(lose * 1000):03d} lost" + _of(views), ours(lose), views)


def top(count: int) -> Teaching:
    """Top K as published caches keep it."""
    return Teaching(f"top {count}, even tail", largest(count))


def dense_of(views: int) -> Teaching:
    """Dense logits of some of the views."""
    return Teaching(DENSE.name + _of(views), dense, views)


def _of(views: int | None) -> str:
    return "" if views is None else f", {views} view{'s' if views > 1 else ''}"
