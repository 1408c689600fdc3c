"""The encodings that ``benchmarks.fidelity`` compares, by name: other systems' and ours, at several sizes.

Those of ``ALONE`` look at each view by itself; those of ``JOINT`` get all views of a sample.
"""

from __future__ import annotations

from benchmarks import encodings
from benchmarks.encodings import jointly
from benchmarks.view_encodings import Encoding, each_alone, each_view
from cache_builder.format.manifest import CodecRequest

LOST = (0.02, 0.01, 0.005, 0.002, 0.001)
"""Shares of the variance that ours may lose."""
BUDGETS = (24.0, 32.0, 40.0, 46.0, 48.0)
"""Bytes per view that ours may take."""
SKETCH_BUDGETS = (24.0, 28.0, 32.0, 36.0, 40.0, 48.0, 64.0)


def ours(name: str, request: CodecRequest) -> Encoding:
    """What a build writes for a request: codec ``joint-sketch``."""
    return Encoding(name, lambda fit, held: jointly(name, fit, held, request))


def tinyvit(k: int) -> Encoding:
    """TinyViT's records."""
    return each_view(f"TinyViT, K={k}", lambda _, held: encodings.tinyvit(held, k))


def fkd(half: bool) -> Encoding:
    """FKD's records."""
    name = f"FKD, K=5, {'fp16' if half else 'fp32'}"
    return each_view(name, lambda _, held: encodings.fkd(held, half))


def megatron(k: int) -> Encoding:
    """Megatron-LM's records."""
    return each_view(f"Megatron-LM, K={k}", lambda _, held: encodings.megatron(held, k))


def distillkit(k: int) -> Encoding:
    """DistillKit's records."""
    return each_view(f"DistillKit, K={k}", lambda _, held: encodings.distillkit(held, k))


ALONE: tuple[Encoding, ...] = (
    *(tinyvit(k) for k in (5, 10, 20, 50, 100)),
    *(fkd(half) for half in (True, False)),
    each_view("ml-dr, K=10", lambda _, held: encodings.ml_dr(held)),
    *(megatron(k) for k in (10, 20, 50)),
    *(distillkit(k) for k in (10, 20, 50, 100)),
    *(each_alone(f"class-sketch, {b:g} bytes", CodecRequest(bytes_per_view=b)) for b in SKETCH_BUDGETS),
    each_view("all logits, fp16", lambda _, held: encodings.dense_half(held)),
    each_view("all logits, bf16", lambda _, held: encodings.dense_bf16(held)),
)
JOINT: tuple[Encoding, ...] = (
    *(ours(f"kdcache, {lose:g} lost", CodecRequest(lose=lose)) for lose in LOST),
    *(ours(f"kdcache, {b:g} bytes", CodecRequest(bytes_per_view=b)) for b in BUDGETS),
)
