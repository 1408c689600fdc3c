from __future__ import annotations

import numpy as np
import pytest

from cache_builder.format.probabilities import softmax, total_variation

LOGITS = np.array([[1.0, 2.0, -np.inf], [700.0, 0.0, -700.0]])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_sum_to_one_in_their_own_precision(kind: type) -> None:
    p = softmax(LOGITS.astype(kind))
    assert p.dtype == kind
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(p[0], [1 / (1 + np.e), np.e / (1 + np.e), 0], rtol=1e-6)


def test_the_distance_of_two_distributions() -> None:
    one, other = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.5, 0.5], [0.4, 0.6]])
    np.testing.assert_allclose(total_variation(one, other, 1), [0, 0.5], atol=1e-12)
    np.testing.assert_allclose(total_variation(2 * one, 2 * other, 2), [0, 0.5], atol=1e-12)


def test_the_distance_from_a_certain_distribution() -> None:
    certain, even = np.array([[50.0, 0.0]], np.float32), np.zeros((1, 2), np.float32)
    assert total_variation(certain, even, 1) == pytest.approx([0.5])
    assert total_variation(certain, certain, 4) == pytest.approx([0])
