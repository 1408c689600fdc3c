"""Stored logits against live ones: what is noise, what the codec loses, what is wrong. Numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

TEMPERATURES = (1, 2, 4, 8)
# The arithmetic of another machine, library or batch may differ by this many times what another batch here
# differs by. In coefficients of the tail a difference far below a step still rounds one in so many the other
# way, hence the square root below.
_TIMES_NOISE = 10.0
# Noise is never taken to be less than this part of the logits' spread: what float32 sums in another order
# differ by, on one kind of device and on two.
_FLOOR_HERE = {"fp32": 1e-6, "bf16": 1e-4, "fp16": 1e-4}
_FLOOR_ELSEWHERE = {"fp32": 1e-3, "bf16": 1e-2, "fp16": 3e-3}


@dataclass(frozen=True)
class Fidelity:
    """How far stored, decoded logits are from live ones; root-mean-squares in logits."""

    records: int
    stored: float
    """Decoded record against the codec's own encode and decode of the live logits: is the cache faithful."""
    equal: int
    """Records of which that difference is nothing at all."""
    noise: float
    """Live against live in other batches and another order: what this machine cannot repeat."""
    noise_coded: float
    """The same after the codec."""
    loss: float
    """The codec's encode and decode of the live logits against these: what compression loses."""
    bound: float
    """``stored`` up to this is noise and roundings that fell the other way."""
    typical: float
    """The median over the records of what ``stored`` sums up: rare roundings do not show in it."""
    typical_bound: float
    """``typical`` up to this is noise."""
    worst: int
    """The record that differs most."""

    @property
    def is_faithful(self) -> bool:
        """Whether the records are those of the live logits."""
        return self.stored <= self.bound and self.typical <= self.typical_bound


def compare(
    stored: Logits, live: Logits, again: Logits, coded: Logits, coded_again: Logits, floor: float
) -> Fidelity:
    """All float32 [n, C]: decoded records, live logits, these in other batches, both through the codec.

    ``floor``: least noise to reckon with, see :func:`noise_floor`.
    """
    noise, loss, noise_coded = rms(again - live), rms(coded - live), rms(coded_again - coded)
    difference = np.nan_to_num(rms_rows(stored - coded), nan=np.inf)
    typical_bound = bound(max(noise, floor), loss, noise_coded)
    return Fidelity(
        records=len(stored),
        stored=rms(stored - coded),
        equal=int((difference == 0).sum()),
        noise=noise,
        noise_coded=noise_coded,
        loss=loss,
        # One record anywhere whose numbers fell on the other side of a level moves by up to twice the loss.
        bound=math.hypot(typical_bound, 2 * loss / math.sqrt(len(stored))),
        typical=float(np.median(difference)),
        typical_bound=typical_bound,
        worst=int(difference.argmax()),
    )


def bound(noise: float, loss: float, noise_coded: float) -> float:
    """What stored logits may be off by, as a root mean square.

    The noise itself, and coefficients that noise rounds to the next step: a share noise / step of them moves
    by a step, and a step is at least sqrt(12) times what the quantiser loses. Both are added as variances.
    """
    noise *= _TIMES_NOISE
    return math.sqrt(noise**2 + math.sqrt(12) * loss * noise + (3 * noise_coded) ** 2)


def noise_floor(logits: Logits, precision: str, same_device: bool) -> float:
    """The least noise to reckon with between two runs of a teacher."""
    floors = _FLOOR_HERE if same_device else _FLOOR_ELSEWHERE
    return floors[precision] * float(np.std(logits))


def rms(values: NDArray[np.floating]) -> float:
    """Root of the mean square; infinite where a value is not finite."""
    mean = float(np.square(values, dtype=np.float64).mean())
    return math.sqrt(mean) if math.isfinite(mean) else math.inf


def rms_rows(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The same for each row."""
    rows: NDArray[np.float64] = np.sqrt(np.square(values, dtype=np.float64).mean(axis=1))
    return rows


def of_other_records(stored: Logits, coded: Logits, limit: float) -> list[tuple[int, int]]:
    """(i, j) of records i whose stored logits are, up to ``limit``, those of another record j."""
    found = []
    for index, row in enumerate(stored):
        distance = rms_rows(coded - row)
        nearest = int(distance.argmin())
        if nearest != index and distance[nearest] <= limit < distance[index]:
            found.append((index, nearest))
    return found
