"""What a floor for classes that only some views mask costs, and what it leaves to them.

    python -m benchmarks masks

Synthetic logits; a group of classes is masked (-1e9) in half of the views, another class in every view. For
several distances of the floor below the other logits: bytes of a record, the total variation against the
teacher's own softmax, and the probability that masked classes get back.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import write_results
from cache_builder.calibration import calibrate, masks
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.format.manifest import CodecRequest
from cache_builder.format.probabilities import total_variation

_MARGINS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0)
_CASES = ((5, 0.5), (5, 2.0), (60, 1.5), (200, 2.5))
"""Classes, and the spread of their logits."""
_TEMPERATURES = (1, 4, 8)


def logits_of(classes: int, spread: float, views: int = 3000) -> NDArray[np.float32]:
    """Logits [views, C] with masks."""
    rng = np.random.default_rng(0)
    rank = min(classes, 40)
    weights = rng.normal(size=(rank, classes)) * np.exp(-np.arange(rank) / 12)[:, None]
    found = rng.normal(size=(views, rank)) @ weights
    found = (found * spread / found.std()).astype(np.float32)
    group = max(1, classes // 6)
    found[::2, :group] = -1e9
    found[:, group] = -1e9
    return found


def measured(logits: NDArray[np.float32], margin: float) -> list[object]:
    """Bytes, total variation by temperature, largest probability given back, of one margin."""
    half = len(logits) // 2
    with mock.patch.object(masks, "MARGIN", margin):
        found = calibrate.fit(logits[:half], CodecRequest(bytes_per_view=64.0))
    packed = found.codec.pack(found.codec.encode(logits[half:]))
    decoded, live = found.codec.decode(found.codec.unpack(packed)), logits[half:]
    row: list[object] = [round(stored_bytes(packed, found.codec), 1)]
    for temperature in _TEMPERATURES:
        row.append(f"{total_variation(decoded, live, temperature).mean():.5f}")
    p = np.exp(decoded - decoded.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return [*row, f"{np.where(live < -1e8, p, 0).sum(axis=1).max():.6f}"]


def main() -> None:
    """Print and keep the table."""
    rows = [
        [classes, spread, margin, *measured(logits_of(classes, spread), margin)]
        for classes, spread in _CASES
        for margin in _MARGINS
    ]
    columns = ["classes", "spread", "floor below", "bytes", *(f"TV T={t}" for t in _TEMPERATURES), "masked p"]
    write_results("masks", "Floors of classes that only some views mask", columns, rows, "Half is held out.")


if __name__ == "__main__":
    main()
