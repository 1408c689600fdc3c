"""What a joint sketch may lose, and how many classes it puts right, where the user leaves both free."""

from __future__ import annotations

from cache_builder.format.manifest import CodecRequest

DEFAULT_LOSE = 0.02
"""Of the variance, where nothing is said: no student was worse for it (``benchmarks/accuracy.py``)."""
FEW = 5
"""K where much is lost anyway; only a small ``--bytes-per-view`` makes it less."""


def allowed_loss(request: CodecRequest) -> float | None:
    """The most that a joint sketch may lose; None where its size or its step was given instead."""
    if request.lose is not None:
        return request.lose
    is_free = request.bytes_per_view is None and request.tail_step is None
    return DEFAULT_LOSE if is_free else None


def limit_in_words(request: CodecRequest) -> str:
    """The limit by its option: ``--lose 0.1``, or ``the default --lose 0.02``."""
    return f"the default --lose {DEFAULT_LOSE:g}" if request.lose is None else f"--lose {request.lose:g}"
