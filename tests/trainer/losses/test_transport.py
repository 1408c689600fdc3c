from __future__ import annotations

import pytest
import torch

from trainer.losses import LOSSES


def test_matching_batches_cost_nothing_in_any_order():
    """Far-apart samples: the plan is the permutation that matches them."""
    teacher = 200 * torch.eye(5, dtype=torch.float64)
    loss = LOSSES["sinkd"](factor=1.0)
    assert loss(teacher.roll(2, 0), teacher, None).item() == pytest.approx(0, abs=1e-6)


def test_one_sample_costs_its_distance():
    student, teacher = torch.randn(2, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distance = (student.div(2).softmax(1) - teacher.div(2).softmax(1)).abs().sum()
    torch.testing.assert_close(LOSSES["sinkd"](factor=1.0)(student, teacher, None), distance)


def test_a_tiny_smoothing_does_not_underflow():
    student, teacher = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(LOSSES["sinkd"](epsilon=1e-4)(student, teacher, None))
