"""The encodings that ``benchmarks.real_teachers`` compares, by name.

An encoding is fitted to some samples and encodes others. It gets the logits of all views of a sample at once,
so that one which keeps something per sample can be a row too; those that look at each view alone are wrapped
by ``each_view``. To add one: a line in ``ENCODINGS``; the part of its name before the comma is its line in
the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.encodings import Encoded, Floats, calibrated, dense_half, jointly
from benchmarks.even_tail import top_k_even_tail
from cache_builder.format.manifest import CodecRequest

BUDGETS = (24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0)
"""Bytes per view that the codec of the release before is asked for."""
LOST = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
"""Shares of the variance that ours may lose."""


@dataclass(frozen=True)
class Encoding:
    """A row of the table."""

    name: str
    encode: Callable[[Floats, Floats], Encoded]
    """From logits [N, V, C] to fit to and others [M, V, C] to encode; ``decoded`` is [M, V, C] too, and what
    is kept once per sample counts as a V-th of it in each view."""

    @property
    def system(self) -> str:
        """What is drawn as one line."""
        return self.name.partition(",")[0].rstrip("0123456789")


def each_view(name: str, encode: Callable[[Floats, Floats], Encoded]) -> Encoding:
    """An encoding of logits [n, C] that knows nothing of other views."""

    def encode_views(fit: Floats, held: Floats) -> Encoded:
        # Records lie in a store view after view.
        views = held.swapaxes(0, 1)
        found = encode(_flat(fit.swapaxes(0, 1)), _flat(views))
        return replace(found, decoded=found.decoded.reshape(views.shape).swapaxes(0, 1))

    return Encoding(name, encode_views)


def ours(lose: float) -> Encoding:
    """Our records that lose no more than this."""
    name = f"kdcache, {lose:g} lost"
    return Encoding(name, lambda fit, held: jointly(name, fit, held, CodecRequest(lose=lose)))


def each_alone(name: str, request: CodecRequest) -> Encoding:
    """What the codec of the release before makes of a request: it knows nothing of other views."""
    return each_view(name, lambda fit, held: calibrated(name, fit, held, request))


def even_tail(k: int) -> Encoding:
    """The K largest probabilities, the rest spread evenly."""
    return each_view(f"even tail, top {k}", lambda _, held: top_k_even_tail(held, k))


_BY_HAND = (
    CodecRequest(top_k=5, tail_rank=128, tail_step=3.0),
    CodecRequest(top_k=5, tail_rank=128, tail_step=2.0),
)

ENCODINGS: tuple[Encoding, ...] = (
    *(even_tail(k) for k in (10, 50, 100)),
    *(each_alone(f"class-sketch, {size:g} bytes", CodecRequest(bytes_per_view=size)) for size in BUDGETS),
    *(each_alone(f"by hand, rank {r.tail_rank}, step {r.tail_step:g}", r) for r in _BY_HAND),
    *(ours(lose) for lose in LOST),
    each_view("all logits, fp16", lambda _, held: dense_half(held)),
)


def _flat(logits: Floats) -> Floats:
    return logits.reshape(-1, logits.shape[-1])
