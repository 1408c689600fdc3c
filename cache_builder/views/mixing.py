"""mixup and CutMix: two rows of a view make two mixed pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cache_builder.format.frozen import Frozen
from cache_builder.views.crops import Probability
from cache_builder.views.pairing import Pairing
from cache_builder.views.philox import Stream, uniforms

Alpha = Annotated[float, Field(ge=0, le=100)]
SHARE_UNIT = 2**16
"""Shares are multiples of 1 / 65536, so that pixels are mixed in integers, the same on every machine."""


@dataclass(frozen=True)
class DrawnMix:
    """With whom, and how, each of n views is mixed."""

    partner: NDArray[np.int64]
    """[n]: row of the partner; the row itself where nothing is mixed."""
    mixed: NDArray[np.bool_]
    """[n]: whether there is a partner."""
    share: NDArray[np.float64]
    """[n]: lambda, the row's own part of the picture, 0 to 1; 1 where nothing is mixed."""
    cut: NDArray[np.float64]
    """[n, 4]: the partner's box, top, left, bottom, right as fractions of the view; zeros for mixup."""
    is_cut: NDArray[np.bool_]
    """[n]: CutMix rather than mixup."""

    def described(self, index: int) -> list[str]:
        """In words, for people."""
        if not self.mixed[index]:
            return ["not mixed"]
        if self.is_cut[index]:
            top, left, bottom, right = self.cut[index]
            box = f"box {left:.2f}-{right:.2f} x {top:.2f}-{bottom:.2f}"
            return [f"CutMix with row {self.partner[index]}, {box}, own share {self.share[index]:.3f}"]
        return [f"mixup with row {self.partner[index]}, own share {self.share[index]:.3f}"]


class Mixing(Frozen):
    """mixup (Zhang et al., ICLR 2018), CutMix (Yun et al., ICCV 2019), or either of both, as timm chooses.

    Partners are pairs of the rows of a view. Both use one lambda ~ Beta(alpha, alpha) and one box: mixup
    gives ``lambda x_i + (1 - lambda) x_j`` and ``lambda x_j + (1 - lambda) x_i``; CutMix puts into each
    picture the other's pixels inside a box of area 1 - lambda, clipped where it reaches outside the view.
    """

    mixup_alpha: Alpha = 0.0
    """alpha of mixup's Beta distribution; 0 = no mixup."""
    cutmix_alpha: Alpha = 0.0
    """alpha of CutMix's; 0 = no CutMix."""
    probability: Probability = 1.0
    """Share of the pairs that are mixed."""
    switch_probability: Probability = 0.5
    """With both alphas: the share of CutMix."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixup_alpha and cutmix_alpha are both 0, so nothing would be mixed")
        return self

    def draw(self, seed: int, view: int, rows: NDArray[np.int64], samples: int) -> DrawnMix:
        """Five numbers of the pair's smaller row: whether, which, lambda, and the box's centre (y, x)."""
        partner = Pairing(seed, view, samples).partners(rows)
        numbers = uniforms(seed, view, np.minimum(rows, partner), 5, Stream.MIX)
        mixed = (partner != rows) & (numbers[:, 0] < self.probability)
        switch = self.switch_probability if self.mixup_alpha and self.cutmix_alpha else self.cutmix_alpha > 0
        is_cut = numbers[:, 1] < switch
        drawn = self._lambda(numbers[:, 2], is_cut)
        boxes = _boxes(numbers[:, 3:], drawn)
        cut = np.where((mixed & is_cut)[:, None], boxes, 0.0)
        area = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1])
        share = np.where(mixed, np.where(is_cut, 1 - area, drawn), 1.0)
        return DrawnMix(np.where(mixed, partner, rows), mixed, share, cut, mixed & is_cut)

    def _lambda(self, numbers: NDArray[np.float64], is_cut: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Beta(alpha, alpha) by its inverse distribution function, rounded to a multiple of 1 / 65536."""
        # Half a second to import: only for recipes that mix.
        from scipy.special import betaincinv

        alpha = np.where(is_cut, self.cutmix_alpha, self.mixup_alpha)
        return np.asarray(np.round(betaincinv(alpha, alpha, numbers) * SHARE_UNIT) / SHARE_UNIT, np.float64)


def _boxes(centre: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squares [n, 4] of area 1 - share around centres [n, 2], clipped to the view."""
    half = np.sqrt(1 - share)[:, None] / 2
    return np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, 1)], axis=1)
