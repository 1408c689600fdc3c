"""Principal components of many logits, in memory that is bounded by the logits themselves.

Nothing of [pairs, C] is made beside the pairs, and nothing of [C, C] where C is large: what is wanted of many
pairs of many classes is found by randomised subspace iteration (Halko, Martinsson and Tropp, 0909.4061,
algorithm 4.4 with two iterations).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_EXACT = 2048
"""Up to so many classes, or pairs, the eigenvectors of their Gram matrix are computed."""
_OVERSAMPLED, _ITERATIONS = 32, 2
_BLOCK_VALUES = 2**22


def principal_axes(pairs: Floats, mean: Doubles, rank: int) -> Doubles:
    """The leading eigenvectors [rank, C] of the covariance of pairs [n, C], signs by their largest entry.

    Rows beyond what the pairs span are zero.
    """
    n, classes = pairs.shape
    spanned = min(rank, classes, n - 1)
    axes = np.zeros((rank, classes))
    if spanned < 1:
        return axes
    if classes <= _EXACT:
        found = np.linalg.eigh(_covariance(pairs, mean))[1][:, ::-1][:, :spanned].T
    elif n <= _EXACT:
        vectors = np.linalg.eigh(_gram(pairs, mean))[1][:, ::-1][:, :spanned]
        found = np.linalg.qr(_onto_classes(pairs, mean, vectors))[0].T
    else:
        found = _randomised(pairs, mean, spanned)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    axes[:spanned] = found * np.where(largest < 0, -1, 1)
    return axes


def blocks(pairs: Floats, mean: Doubles) -> Iterator[Doubles]:
    """The pairs around their mean, some at a time, in float64."""
    rows = max(1, _BLOCK_VALUES // pairs.shape[1])
    for start in range(0, len(pairs), rows):
        yield pairs[start : start + rows] - mean


def _covariance(pairs: Floats, mean: Doubles) -> Doubles:
    total = np.zeros((pairs.shape[1], pairs.shape[1]))
    for block in blocks(pairs, mean):
        total += block.T @ block
    return total


def _gram(pairs: Floats, mean: Doubles) -> Doubles:
    total = np.zeros((len(pairs), len(pairs)))
    columns = max(1, _BLOCK_VALUES // len(pairs))
    for start in range(0, pairs.shape[1], columns):
        part = pairs[:, start : start + columns] - mean[start : start + columns]
        total += part @ part.T
    return total


def _onto_classes(pairs: Floats, mean: Doubles, vectors: Doubles) -> Doubles:
    """Vectors [n, r] of pairs to [C, r] of classes."""
    total = np.zeros((pairs.shape[1], vectors.shape[1]))
    start = 0
    for block in blocks(pairs, mean):
        total += block.T @ vectors[start : start + len(block)]
        start += len(block)
    return total


def _onto_pairs(pairs: Floats, mean: Doubles, vectors: Doubles) -> Doubles:
    """Vectors [C, r] of classes to [n, r] of pairs."""
    return np.concatenate([block @ vectors for block in blocks(pairs, mean)])


def _randomised(pairs: Floats, mean: Doubles, rank: int) -> Doubles:
    width = min(rank + _OVERSAMPLED, len(pairs) - 1)
    vectors = np.random.Generator(np.random.Philox(0)).standard_normal((pairs.shape[1], width))
    for _ in range(_ITERATIONS):
        of_pairs = np.linalg.qr(_onto_pairs(pairs, mean, vectors))[0]
        vectors = np.linalg.qr(_onto_classes(pairs, mean, of_pairs))[0]
    small = _onto_pairs(pairs, mean, vectors)
    turn = np.linalg.eigh(small.T @ small)[1][:, ::-1][:, :rank]
    return np.asarray((vectors @ turn).T)
