"""Top-K probabilities as dense logits: what is outside the top K is spread evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import DataError

# The smallest probability a class can have here: half precision ends at 6e-8, and log(0) is no logit.
_LEAST = 2.0**-26


def even_tail(
    index: NDArray[np.integer], probabilities: NDArray[np.floating], classes: int
) -> NDArray[np.float32]:
    """Class ids [n, K] and probabilities [n, K] to logits float32 [n, C], all outside the top K 0.

    A logit is ``log(p / p_tail)`` with ``p_tail = (1 - sum p) / (C - K)``: softmax gives p again, and the
    tail needs no storage at all, because it is the same number in every record. Rounding can leave less than
    nothing, or more than the smallest of the top K, for the tail: it is kept between the two.
    Raises :class:`DataError` for class ids that there are not and for what is no probability.
    """
    _check(index, probabilities, classes)
    p = np.maximum(probabilities.astype(np.float64), _LEAST)
    count = classes - index.shape[1]
    if count:
        tail = np.clip((1.0 - p.sum(axis=1)) / count, _LEAST, np.maximum(p.min(axis=1), _LEAST))
    else:
        tail = np.ones(len(p))
    logits = np.zeros((len(p), classes), np.float32)
    np.put_along_axis(logits, index.astype(np.int64), np.log(p / tail[:, None]).astype(np.float32), axis=1)
    return logits


def _check(index: NDArray[np.integer], probabilities: NDArray[np.floating], classes: int) -> None:
    if index.size and not 0 <= int(index.min()) <= int(index.max()) < classes:
        raise DataError(
            f"class ids from {index.min()} to {index.max()}, expected 0 to {classes - 1}: --classes?"
        )
    ordered = np.sort(index, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise DataError("a record names a class twice: is it damaged, or of another K?")
    sums = probabilities.astype(np.float64).sum(axis=1)
    odd = ~np.isfinite(sums) | (probabilities < 0).any(axis=1) | (sums > 1.02) | (sums <= 0)
    if odd.any():
        raise DataError(
            f"record {int(np.flatnonzero(odd)[0])} of a block has probabilities that sum to "
            f"{float(sums[odd][0]):.4g}: these are no probabilities of the top K"
        )
