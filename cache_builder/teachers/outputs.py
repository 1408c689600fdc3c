"""What models answer with, and the logits in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cache_builder.format.errors import ConfigError

LOGITS = "logits"
"""The output that every classifier has."""
_NAMES = ("logits", "out", "output", "pred", "prediction")


def logits_of(answer: Any, who: str = "the teacher") -> Tensor:
    """Logits [B, C] of a tensor, ``{"logits": …}``, an object with ``.logits``, or (main, auxiliary …).

    A map [B, C, 1, 1] is flattened. Raises :class:`ConfigError` for anything else, saying what it was.
    """
    found = _inside(answer)
    if isinstance(found, Tensor) and found.ndim == 4 and found.shape[2:] == (1, 1):
        found = found.flatten(1)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ConfigError(f"{who} returned {_shown(answer)}, expected logits of shape [batch, classes]")
    return found


def _inside(answer: Any) -> Any:
    if isinstance(answer, Mapping):
        return next((answer[name] for name in _NAMES if name in answer), None)
    if isinstance(getattr(answer, "logits", None), Tensor):
        return answer.logits
    # torchvision's models with auxiliary heads put the main one first.
    return (
        answer[0] if isinstance(answer, tuple | list) and answer and isinstance(answer[0], Tensor) else answer
    )


def _shown(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return str(list(answer.shape))
    if isinstance(answer, Mapping):
        return (
            f"a {type(answer).__name__} of {', '.join(map(repr, list(answer)[:6]))} (none is called logits)"
        )
    return type(answer).__name__
