"""Before hours are spent: does the teacher repeat itself, and does it answer with logits?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cache_builder.format.errors import ConfigError

PICTURES = 8
"""Views that are looked at; one of them also alone."""
# Parts of the logits' spread. Rounding stays far below them, also in half precision; dropout, and a batch
# norm that looks at the batch, move logits by the order of their spread.
_REFUSED, _TOLD = 0.1, 0.03
# Masked classes (-1e9) would be all of the spread.
_FLOOR = -100.0
_SUM_TOLERANCE = 1e-3


def check_teacher(forward: Callable[[Tensor], Tensor], images: Tensor, allow_unrepeatable: bool) -> list[str]:
    """Sentences worth telling about a teacher that is shown uint8 [n, 3, S, S]; mostly none.

    Raises :class:`ConfigError` for one that answers differently to the same picture, in the next run or in
    another batch, unless that is allowed, and for one that gives probabilities.
    """
    whole, again = _answers(forward, images), _answers(forward, images)
    refuse_probabilities(whole, "the teacher")
    parts = (
        torch.cat([_answers(forward, images[:1]), _answers(forward, images[1:])])
        if len(images) > 1
        else whole
    )
    told = []
    for answers, what, causes in (
        (
            again,
            "run twice on one batch, the teacher answers differently",
            "dropout that ignores eval(), or sampling",
        ),
        (
            parts,
            "the teacher's answer to a picture depends on the batch it is in",
            "batch normalisation without running statistics or left in training mode",
        ),
    ):
        moved = _moved(whole, answers)
        if moved > _REFUSED and not allow_unrepeatable:
            raise ConfigError(
                f"{what}: logits move by {moved:.0%} of their spread ({causes}?). What is stored would be "
                "chance; repair the teacher, or add --allow-unrepeatable to store it all the same"
            )
        if moved > _TOLD:
            told.append(f"warning: {what}, by {moved:.0%} of the logits' spread ({causes}?)")
    return told + _suspicions(whole)


def _answers(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return forward(images).float().cpu()


def _moved(one: Tensor, other: Tensor) -> float:
    """The largest difference as a part of the standard deviation of what tells pictures and classes apart."""
    one, other = (torch.nan_to_num(values, neginf=_FLOOR).clamp(min=_FLOOR) for values in (one, other))
    spread = float(one.std()) if one.numel() > 1 else 0.0
    return float((one - other).abs().max()) / spread if spread > 0 else 0.0


def check_members(members: Sequence[tuple[str, Callable[[Tensor], Tensor]]], images: Tensor) -> None:
    """Refuse an ensemble of which a member gives probabilities: their mean would hide it."""
    for name, forward in members:
        refuse_probabilities(_answers(forward, images), f"member {name} of the ensemble")


def refuse_probabilities(logits: Tensor, who: str) -> None:
    """Raise :class:`ConfigError` for answers [n, C] that are probabilities."""
    in_range = bool(((logits >= 0) & (logits <= 1)).all())
    sums = (logits.sum(dim=1) - 1).abs()
    if in_range and bool((sums < _SUM_TOLERANCE).all()):
        raise ConfigError(
            f"{who} gives probabilities and no logits: its answers lie in 0 to 1 and each sums to 1, so "
            "a softmax is its last layer. Leave that out, or return its logarithm; stored as they are, every "
            "student would learn an almost even distribution"
        )


def _suspicions(logits: Tensor) -> list[str]:
    if len(logits) > 1 and bool((logits == logits[0]).all()):
        return ["warning: the teacher gives every picture the same answer: are its weights in place?"]
    if logits.shape[1] > 2 and bool(((logits >= 0) & (logits <= 1)).all()):
        return ["warning: every answer of the teacher lies in 0 to 1: is a sigmoid its last layer?"]
    return []
