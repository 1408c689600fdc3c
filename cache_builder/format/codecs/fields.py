"""Columns of records, and what every codec computes the same way."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, NDArray[Any]]
"""Field name -> array [n] or [n, count]: the columns of n records."""


def log_sum_exp(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Row-wise log-sum-exp."""
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a logit infinitely far below the largest adds nothing
        summed = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return cast("NDArray[np.floating[Any]]", summed)


def log_sum_exp_above(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row-wise log-sum-exp minus the largest logit: not a difference, which would lose its digits."""
    order = logits.argmax(axis=1)[:, None]
    with np.errstate(over="ignore"):
        others = np.exp(logits - np.take_along_axis(logits, order, axis=1))
    np.put_along_axis(others, order, 0, axis=1)
    above: NDArray[np.float32] = np.log1p(others.sum(axis=1))
    return above


def stored_first(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Class ids [n, count] of the largest logits, largest first, equal logits by class id.

    Sorts integers that are all different, the float's bits in an order that integers have and then the class
    id, so that only the chosen few must be sorted: a tenth of the time of a stable sort at 1,000 classes.
    """
    bits = (np.ascontiguousarray(logits, np.float32) + np.float32(0)).view(np.int32)  # -0.0 is 0.0
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64)
    keys = np.arange(logits.shape[1]) - (ordered << 32)
    if count < logits.shape[1]:
        chosen = np.argpartition(keys, count - 1, axis=1)[:, :count]
    else:
        chosen = np.broadcast_to(np.arange(count), logits.shape)
    order = np.take_along_axis(keys, chosen, axis=1).argsort(axis=1)
    index: NDArray[np.int64] = np.take_along_axis(chosen, order, axis=1)
    return index
