"""Whether the byte budget is kept at every number of classes, or the miss is told; what calibration takes.

    python -m benchmarks budget

Synthetic logits of forty directions and noise. Bytes are those of held-out records as Zarr stores them, in
one chunk; "told" is what calibration would say to the user.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import write_results
from cache_builder.calibration import calibrate
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.format.manifest import CodecRequest

_CLASSES = (2, 3, 10, 60, 100, 482, 1000)
_BUDGETS = (16.0, 40.0, 64.0, 128.0)
_VIEWS = 2048


def logits_of(classes: int) -> NDArray[np.float32]:
    """Logits [views, C]."""
    rng = np.random.default_rng(0)
    rank = min(classes, 40)
    weights = rng.normal(size=(rank, classes)) * np.exp(-np.arange(rank) / 12)[:, None]
    found = rng.normal(size=(_VIEWS, rank)) @ weights
    found = found * 2 / found.std() + rng.normal(size=found.shape) * 0.2
    return np.asarray(found, np.float32)


def measured(logits: NDArray[np.float32], budget: float) -> list[object]:
    """Bytes of a held-out record, their share of the budget, what was told, processor seconds."""
    half, request = len(logits) // 2, CodecRequest(bytes_per_view=budget)
    began = time.process_time()
    found = calibrate.unfitted(logits.shape[1], request)
    if found is None:
        found = calibrate.fit(logits[:half], request)
    took = time.process_time() - began
    packed = found.codec.pack(found.codec.encode(logits[half:]))
    size = stored_bytes(packed, found.codec)
    told = "; ".join(line.split(":")[1].split(",")[0].strip() for line in found.told) or "nothing"
    return [round(size, 1), f"{size / budget:.0%}", told, round(took, 1)]


def main() -> None:
    """Print and keep the table."""
    rows = []
    for classes in _CLASSES:
        logits = logits_of(classes)
        rows += [[classes, budget, *measured(logits, budget)] for budget in _BUDGETS]
    columns = ["classes", "budget", "bytes", "of the budget", "told", "processor s"]
    write_results("budget", "The byte budget at every number of classes", columns, rows, "")


if __name__ == "__main__":
    main()
