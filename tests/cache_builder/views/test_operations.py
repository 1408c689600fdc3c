from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandAugment as TheirRandAugment
from torchvision.transforms.v2 import TrivialAugmentWide

from cache_builder.views.operations import BINS, OPERATIONS, RandAugment, TrivialAugment, magnitudes

ROWS = np.arange(6000)
NARROW = np.array([operation.narrow for operation in OPERATIONS])
WIDE = np.array([operation.wide for operation in OPERATIONS])
SIDE = 331  # a view in which torchvision's translation of RandAugment is 150 pixels


@pytest.mark.parametrize(
    ("space", "theirs"), [(NARROW, TheirRandAugment), (WIDE, TrivialAugmentWide)], ids=["narrow", "wide"]
)
def test_magnitudes_are_torchvisions(space: np.ndarray, theirs: type) -> None:  # type: ignore[type-arg]
    table = theirs._AUGMENTATION_SPACE
    assert [operation.name for operation in OPERATIONS] == list(table)
    levels = np.arange(BINS)
    for kind, (operation, (function, signed)) in enumerate(zip(OPERATIONS, table.values(), strict=True)):
        assert operation.signed == signed
        wanted = function(BINS, SIDE, SIDE)
        wanted = torch.zeros(BINS) if wanted is None else wanted.double()
        if operation.name.startswith("Translate"):
            # Fractions here; the wide space's 32 pixels are of 224.
            wanted = wanted / (SIDE if space is NARROW else 224)
        kinds = np.full(BINS, kind, np.int8)
        found = magnitudes(kinds, levels, np.zeros(BINS, np.bool_), space)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
        negative = magnitudes(kinds, levels, np.ones(BINS, np.bool_), space)
        np.testing.assert_array_equal(negative, -found if signed else found)


def test_every_operation_is_as_likely() -> None:
    drawn = RandAugment(num_ops=3).draw(1, 2, ROWS)
    assert drawn.kinds.shape == drawn.magnitudes.shape == (6000, 3)
    for slot in range(3):
        counts = np.bincount(drawn.kinds[:, slot], minlength=14)
        assert np.abs(counts - 6000 / 14).max() < 5 * np.sqrt(6000 / 14)
    assert abs(np.corrcoef(drawn.kinds[:, 0], drawn.kinds[:, 1])[0, 1]) < 5 / np.sqrt(6000)


def test_randaugment_has_one_magnitude_and_either_sign() -> None:
    drawn = RandAugment(magnitude=15).draw(1, 2, ROWS)
    rotations = drawn.magnitudes[drawn.kinds == 5]
    assert set(np.round(rotations, 6)) == {-15.0, 15.0}
    assert (rotations > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert set(drawn.magnitudes[drawn.kinds == 10]) == {6.0}, "posterize keeps 8 - 2 bits"
    assert set(drawn.magnitudes[drawn.kinds == 11]) == {0.5}, "solarize has no sign"


def test_trivialaugment_draws_every_level() -> None:
    drawn = TrivialAugment().draw(1, 2, np.arange(20000))
    rotations = np.abs(drawn.magnitudes[drawn.kinds == 5])
    levels = np.round(rotations / 135 * 30).astype(int)
    counts = np.bincount(levels, minlength=BINS)
    expected = len(levels) / BINS
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert set(drawn.magnitudes[drawn.kinds == 10]) == set(range(2, 9))


def test_more_operations_keep_the_first_ones() -> None:
    few, many = (RandAugment(num_ops=count).draw(1, 2, ROWS[:50]) for count in (2, 4))
    np.testing.assert_array_equal(few.kinds, many.kinds[:, :2])


def test_pinned() -> None:
    rows = np.array([0, 5, 10**6])
    drawn = RandAugment().draw(7, 3, rows)
    assert drawn.kinds.tolist() == [[2, 4], [12, 13], [5, 12]]
    np.testing.assert_allclose(drawn.magnitudes, [[0.09, -0.13595166], [0, 0], [9, 0]], atol=1e-8)
    drawn = TrivialAugment().draw(7, 3, rows)
    assert drawn.kinds.tolist() == [[2], [12], [5]]
    np.testing.assert_allclose(drawn.magnitudes, [[-0.528], [0], [130.5]], atol=1e-8)
    assert drawn.described(2) == ["Rotate 130"] or drawn.described(2) == ["Rotate 131"]
