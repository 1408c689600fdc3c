"""Masked logits: recognised where they can be nothing else, and decoded to a constant that is finite."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.masking import (
    LOWEST,
    MASKED_BELOW,
    MaskSection,
    is_masked,
)
from cache_builder.format.codecs.topk_tail import TopkTailSettings
from tests.caches import Arrays, bound, no_tail

MASKS = [-1e4, -1e9, float(np.finfo(np.float32).min), -np.inf]


def sketch(masks: MaskSection | None) -> ClassSketchSettings:
    return ClassSketchSettings(
        top_k=2, index_bits=8, value_bits=8, value_step=0.05, tail_rank=2, tail_wide=0, tail_bytes=1,
        tail_step=0.5, index_coding="rank", masks=masks,
    )  # fmt: skip


def arrays(mean: list[float]) -> Arrays:
    count = len(mean)
    return Arrays(
        np.array(mean, np.float32), np.zeros((2, count), np.float32), np.zeros((count, 2), np.int16)
    )


@pytest.mark.parametrize("mask", MASKS)
def test_what_every_way_of_masking_leaves_is_a_mask(mask: float) -> None:
    logits = np.array([[3.0, mask, -40.0], [mask, mask, 0.5]], np.float32)
    assert is_masked(logits).tolist() == [[False, True, False], [True, True, False]]


def test_large_logits_are_no_masks_where_all_are_large() -> None:
    """A teacher whose logits lie around -1e6, or spread over 1e4: nothing says which are left out."""
    assert not is_masked(np.array([[-1e6, -1.1e6], [2e4, -2e4]], np.float32)).any()


def test_masks_become_what_they_decode_to() -> None:
    codec = bound(sketch(MaskSection(classes=1, lowest=LOWEST, floor=-20.0)), arrays([0.0, LOWEST, 1.0]))
    found = codec.settled(np.array([[1.0, -np.inf, -np.inf], [1.0, -1e9, 2.0]], np.float32))
    assert found.tolist() == [[1.0, LOWEST, -20.0], [1.0, LOWEST, 2.0]]
    assert LOWEST < MASKED_BELOW


def test_a_class_that_is_suddenly_not_masked_is_no_number() -> None:
    codec = bound(sketch(MaskSection(classes=1, lowest=LOWEST, floor=-20.0)), arrays([0.0, LOWEST, 1.0]))
    found = codec.settled(np.array([[1.0, 2.0, 3.0]], np.float32))
    assert np.isnan(found).tolist() == [[False, True, False]]


def test_without_masks_nothing_changes() -> None:
    logits = np.array([[1.0, -1e9]], np.float32)
    codec = bound(sketch(None), arrays([0.0, 0.0]))
    assert codec.settled(logits) is logits
    assert codec.without_place(logits).tolist() == [True]


@pytest.mark.parametrize("mask", [-1e4, -6e4])
def test_a_mask_that_calibration_did_not_see_is_found_in_the_record(mask: float) -> None:
    """It takes the whole range of the record's steps: every other class would be alike."""
    section = TopkTailSettings(top_k=5, index_bits=8, tail_rank=0, tail_wide=0, tail_step=0.0)
    logits = np.array([[1, 2, 3, 4, 5], [1, 2, mask, 4, 5], [9e3, -9e3, 0, 0, 0]], np.float32)
    codec = bound(section, no_tail(5))
    assert codec.usable(codec.encode(logits)).tolist() == [True, False, True]
