"""Probabilities from logits, in NumPy. In torch they are ``softmax`` and ``log_softmax`` themselves."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating)


def softmax(logits: NDArray[_Float]) -> NDArray[_Float]:
    """Rows of logits [..., C] as probabilities, in the precision they have; -inf is a class without any."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[_Float] = raised / raised.sum(axis=-1, keepdims=True)
    return probabilities


def total_variation(one: NDArray[_Float], other: NDArray[_Float], temperature: float) -> NDArray[_Float]:
    """Half the L1 distance of softmax(one / T) and softmax(other / T), for each row."""
    t = one.dtype.type(temperature)
    distances: NDArray[_Float] = np.abs(softmax(one / t) - softmax(other / t)).sum(axis=-1) / 2
    return distances
