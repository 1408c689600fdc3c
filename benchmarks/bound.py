"""The least bytes that logits can take at a given loss: the Gaussian rate-distortion bound.

Independent Gaussian components of variance v, of which each may be off by D in the mean square, take at least
max(0, 1/2 log2(v / D)) bits each, and one D for all of them is best (reverse water-filling: Cover & Thomas,
Elements of Information Theory, section 10.3.3). Components weaker than D are left out whole.

The components are the eigenvectors of what a fitting set varies by, and the variances are those of *other*
samples along them, about the fitting set's mean: a codec has no better basis either. The V views of a sample
are one vector here, whose orthonormal transform is their mean times the root of V, of covariance V B + W, and
V - 1 contrasts of covariance W, where B is what samples differ by and W what the views of one differ by.

Logits are not Gaussian. A coder that uses what they are may take less, so this is the measure and no wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BISECTIONS = 200

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]


def water_level(variances: Doubles, counts: Doubles, lost: float) -> float:
    """The D at which components, each there ``counts`` times, lose this share of their variance."""
    wanted = lost * float(counts @ variances)
    low, high = 0.0, float(variances.max())
    for _ in range(_BISECTIONS):
        level = (low + high) / 2
        if float(counts @ np.minimum(variances, level)) < wanted:
            low = level
        else:
            high = level
    return high


def bits(variances: Doubles, counts: Doubles, lost: float) -> float:
    """Of all components together, where this share of their variance may be lost (0 < lost <= 1)."""
    level = water_level(variances, counts, lost)
    above = variances > level
    return float(counts[above] @ np.log2(variances[above] / level)) / 2


@dataclass(frozen=True)
class Spread:
    """What logits of several views of many samples vary by: B and W, each [C, C]."""

    between: Doubles
    within: Doubles

    @classmethod
    def of(cls, logits: Floats, mean: Floats) -> Spread:
        """Of logits [N, V, C] about a mean [C]; with one view W is unknown and counted as B."""
        samples, views, classes = logits.shape
        centred = logits.astype(np.float64) - mean
        means = centred.mean(axis=1)
        if views == 1:
            return cls(means.T @ means / samples, np.zeros((classes, classes)))
        inner = (centred - means[:, None]).reshape(-1, classes)
        within = inner.T @ inner / (samples * (views - 1))
        # The mean of V views still has a V-th of what the views differ by.
        return cls(means.T @ means / samples - within / views, within)

    @property
    def total(self) -> Doubles:
        """Of a view of its own."""
        return self.between + self.within

    @property
    def between_views(self) -> float:
        """The share of the variance that lies between the views of one sample."""
        return float(np.trace(self.within) / np.trace(self.total))


@dataclass(frozen=True)
class Bound:
    """The components of a sample's views: their variances and how often each is there."""

    variances: Doubles
    counts: Doubles
    views: int

    @classmethod
    def alone(cls, fitted: Spread, held: Spread) -> Bound:
        """Each view coded without the others."""
        variances = _along(fitted.total, held.total)
        return cls(variances, np.ones_like(variances), 1)

    @classmethod
    def jointly(cls, fitted: Spread, held: Spread, views: int) -> Bound:
        """All views of a sample coded together."""
        common = _along(views * fitted.between + fitted.within, views * held.between + held.within)
        contrasts = _along(fitted.within, held.within)
        counts = np.concatenate([np.ones_like(common), np.full_like(contrasts, views - 1)])
        return cls(np.concatenate([common, contrasts]), counts, views)

    def bytes_per_view(self, lost: float) -> float:
        """Where this share of the variance may be lost."""
        return bits(self.variances, self.counts, lost) / 8 / self.views


def _along(fitted: Doubles, held: Doubles) -> Doubles:
    """Variances of the one along the eigenvectors of the other."""
    _, basis = np.linalg.eigh(fitted)
    found: Doubles = np.einsum("ij,ij->j", basis, held @ basis)
    # B is estimated by a difference, which for a component without variance may fall below nothing.
    return np.maximum(found, 0.0)
