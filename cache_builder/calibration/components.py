"""Principal components of many logits, in memory that is bounded by the logits themselves.

Nothing of [pairs, C] is made beside the pairs, and nothing of [C, C] where C is large: what is wanted of many
pairs of many classes is found by randomised subspace iteration (Halko, Martinsson and Tropp, 0909.4061,
algorithm 4.4 with two iterations).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_EXACT = 2048
"""Up to so many classes, or pairs, the eigenvectors of their Gram matrix are computed."""
_OVERSAMPLED, _ITERATIONS = 32, 2
_ENOUGH = 6
"""So many pairs for each axis are looked at where they are found by iteration."""
_BLOCK_VALUES = 2**22


@dataclass(frozen=True)
class Pairs:
    """Some rows of logits, which are never copied together."""

    logits: Floats
    """[n, C]."""
    chosen: NDArray[np.bool_]
    """[n]."""

    @classmethod
    def all(cls, logits: Floats) -> Pairs:
        """Every row."""
        return cls(logits, np.ones(len(logits), bool))

    def __len__(self) -> int:
        return int(self.chosen.sum())

    @property
    def classes(self) -> int:
        """C."""
        return int(self.logits.shape[1])

    def are_enough(self, rank: int) -> bool:
        """Whether more pairs would be left out: where there are many of them and many classes."""
        return self.classes > _EXACT and len(self) >= max(_EXACT, _ENOUGH * rank)

    def thinned(self, most: int) -> Pairs:
        """At most so many of the rows, spread over them."""
        rows = np.flatnonzero(self.chosen)
        few = np.zeros_like(self.chosen)
        few[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]] = True
        return Pairs(self.logits, few)

    def mean(self) -> Doubles:
        """Of each class [C]."""
        total = np.zeros(self.classes)
        for block in self.blocks(total):
            total = total + block.sum(axis=0)
        return total / max(1, len(self))

    def blocks(self, mean: Doubles) -> Iterator[Doubles]:
        """The rows around a mean, some at a time, in float64."""
        rows = max(1, _BLOCK_VALUES // self.classes)
        for start in range(0, len(self.logits), rows):
            part = slice(start, start + rows)
            yield self.logits[part][self.chosen[part]] - mean


def principal_axes(pairs: Pairs, mean: Doubles, rank: int) -> Doubles:
    """The leading eigenvectors [rank, C] of the covariance of n pairs, signs by their largest entry.

    Rows beyond what the pairs span are zero.
    """
    spanned = min(rank, pairs.classes, len(pairs) - 1)
    axes = np.zeros((rank, pairs.classes))
    if spanned < 1:
        return axes
    if pairs.classes <= _EXACT:
        found = np.linalg.eigh(_covariance(pairs, mean))[1][:, ::-1][:, :spanned].T
    elif len(pairs) <= _EXACT:
        vectors = np.linalg.eigh(_gram(pairs, mean))[1][:, ::-1][:, :spanned]
        found = np.linalg.qr(_onto_classes(pairs, mean, vectors))[0].T
    else:
        found = _randomised(pairs.thinned(_ENOUGH * spanned), mean, spanned)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    axes[:spanned] = found * np.where(largest < 0, -1, 1)
    return axes


def _covariance(pairs: Pairs, mean: Doubles) -> Doubles:
    total = np.zeros((pairs.classes, pairs.classes))
    for block in pairs.blocks(mean):
        total += block.T @ block
    return total


def _gram(pairs: Pairs, mean: Doubles) -> Doubles:
    total = np.zeros((len(pairs), len(pairs)))
    columns = max(1, _BLOCK_VALUES // len(pairs))
    for start in range(0, pairs.classes, columns):
        part = pairs.logits[:, start : start + columns][pairs.chosen] - mean[start : start + columns]
        total += part @ part.T
    return total


def _onto_classes(pairs: Pairs, mean: Doubles, vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors [n, r] of pairs to [C, r] of classes."""
    total = np.zeros((pairs.classes, vectors.shape[1]), vectors.dtype)
    start = 0
    for block in pairs.blocks(mean):
        total += block.astype(vectors.dtype, copy=False).T @ vectors[start : start + len(block)]
        start += len(block)
    return total


def _onto_pairs(pairs: Pairs, mean: Doubles, vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors [C, r] of classes to [n, r] of pairs."""
    parts = [block.astype(vectors.dtype, copy=False) @ vectors for block in pairs.blocks(mean)]
    return np.concatenate(parts)


def _randomised(pairs: Pairs, mean: Doubles, rank: int) -> NDArray[Any]:
    # In float32: a basis is stored with four digits, and this is the longest part of a calibration.
    width = min(rank + _OVERSAMPLED, len(pairs) - 1)
    drawn = np.random.Generator(np.random.Philox(0)).standard_normal((pairs.classes, width), np.float32)
    vectors: NDArray[Any] = drawn
    for _ in range(_ITERATIONS):
        of_pairs = np.linalg.qr(_onto_pairs(pairs, mean, vectors))[0]
        vectors = np.linalg.qr(_onto_classes(pairs, mean, of_pairs))[0]
    small = _onto_pairs(pairs, mean, vectors).astype(np.float64)
    turn = np.linalg.eigh(small.T @ small)[1][:, ::-1][:, :rank]
    return np.asarray((vectors @ turn).T)
