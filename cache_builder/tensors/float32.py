"""Matrix products in full float32, whatever the process around them has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Autocast, TF32 (CUDA) and bfloat16 (oneDNN on CPUs) are off within.

    The tail of a record is one such product; TF32 keeps 10 bits of each factor, which is enough to change the
    order of neighbours among the K largest. ``torch.set_float32_matmul_precision("high")``, which many
    training scripts call, would put it there. The attribute of each backend is used because the older
    switches raise where a program has set the newer ones.
    """
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
