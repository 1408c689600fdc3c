"""Sums of the teacher's accuracy, calibration and entropy, taken on the device beside the forward pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cache_builder.format.codecs.masking import LOWEST
from cache_builder.format.kept import KeptSums
from cache_builder.format.statistics import CONFIDENCE_BINS, ENTROPY_BINS, StatisticSums, TileStatistics

NO_LABEL = -1
INVALID = -2
"""In place of a label: the picture could not be read, so its logits mean nothing."""

# The entries of the vector in which everything is summed, by field of the sums.
_WIDTHS = {
    "records": 1,
    "labelled": 1,
    "top1": 1,
    "top5": 1,
    "nll": 1,
    "entropy": 1,
    "bin_records": CONFIDENCE_BINS,
    "bin_top1": CONFIDENCE_BINS,
    "bin_confidence": CONFIDENCE_BINS,
    "entropy_records": ENTROPY_BINS,
}
_FLOATS = ("nll", "entropy", "bin_confidence")


class StatisticsMeter:
    """Adds batches up and gives the sums of a tile.

    One float64 vector on the device holds everything, so that nothing is waited for between batches; counts
    below 2^53 are exact in it. Batches of 64 and 1,000 classes took 1.0 ms beside 2,745 ms of resnet18 (one
    core of an AMD EPYC, 2026-11-25).
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self._entropy_limit = math.log(classes)
        self._sums = torch.zeros(sum(_WIDTHS.values()), dtype=torch.float64, device=device)

    @torch.inference_mode()
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count logits [B, C] on the device; ``labels`` int64 [B] on the host.

        A label is a class id, ``NO_LABEL`` (only the entropy is counted) or ``INVALID`` (nothing is).
        """
        logits, labels = _kept(logits.float(), labels, labels != INVALID)
        log_p = logits.log_softmax(dim=1)
        # A masked class has no probability, and nothing times minus infinity is no number.
        entropy = -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(dim=1)
        found = {"records": _count(entropy), "entropy": entropy}
        found["entropy_records"] = _one_hot(
            (entropy * (ENTROPY_BINS / self._entropy_limit)).floor(), ENTROPY_BINS
        )
        if (labels != NO_LABEL).any():
            found |= _labelled(*_kept(logits, labels, labels != NO_LABEL))
        absent = torch.zeros(1, 1, dtype=torch.float64, device=logits.device)
        columns = [
            found[name].double().reshape(-1, width) if name in found else absent.expand(1, width)
            for name, width in _WIDTHS.items()
        ]
        self._sums += torch.cat([column.sum(dim=0) for column in columns])

    def take(self, kept: KeptSums | None = None) -> TileStatistics:
        """The sums since the last call, which are then forgotten; ``kept``: what the records keep."""
        values = torch.split(self._sums.cpu(), list(_WIDTHS.values()))
        sums = {name: _numbers(name, value.tolist()) for name, value in zip(_WIDTHS, values, strict=True)}
        self._sums.zero_()
        return TileStatistics.sealed(StatisticSums.model_validate({**sums, "kept": kept}))


def _numbers(name: str, values: list[float]) -> object:
    # Rounding may put the entropy of a certain teacher a little below zero.
    numbers = [max(0.0, value) for value in values] if name in _FLOATS else [int(value) for value in values]
    return numbers[0] if _WIDTHS[name] == 1 else numbers


def _kept(values: Tensor, labels: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Both without the rows that are not to be kept, decided on the host; usually that is none."""
    if keep.all():
        return values, labels
    index = keep.nonzero()[:, 0]
    return values[index.to(values.device, non_blocking=True)], labels[index]


def _labelled(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What is summed over labelled records."""
    labels = labels.to(logits.device, non_blocking=True)[:, None]
    own, lse = logits.gather(1, labels), logits.logsumexp(dim=1, keepdim=True)
    classes = torch.arange(logits.shape[1], device=logits.device)
    rank = ((logits > own) | ((logits == own) & (classes < labels))).sum(dim=1)
    confidence = (logits.amax(dim=1, keepdim=True) - lse).exp()
    bins = _one_hot((confidence[:, 0] * CONFIDENCE_BINS).ceil() - 1, CONFIDENCE_BINS)
    return {
        "labelled": _count(own),
        "top1": rank == 0,
        "top5": rank < 5,
        # A masked class may be the label of a picture: its sum stays finite.
        "nll": (lse - own).clamp_max(-LOWEST),
        "bin_records": bins,
        "bin_top1": bins & (rank == 0)[:, None],
        "bin_confidence": bins * confidence.double(),
    }


def _count(rows: Tensor) -> Tensor:
    return rows.new_ones(len(rows))


def _one_hot(position: Tensor, bins: int) -> Tensor:
    """[B, bins]; its sum over B is a histogram, in the same order every time, as a scatter is not."""
    return position.clamp(0, bins - 1)[:, None] == torch.arange(bins, device=position.device)
