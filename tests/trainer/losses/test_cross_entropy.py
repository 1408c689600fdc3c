from __future__ import annotations

import math

import pytest
import torch

from cache_builder.format.errors import ConfigError
from trainer.losses import LOSSES


def test_uniform_logits_cost_log_c():
    value = LOSSES["ce"]()(torch.zeros(4, 10), None, torch.arange(4))
    assert value.item() == pytest.approx(math.log(10))


def test_full_smoothing_forgets_the_label():
    student = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    loss = LOSSES["ce"](label_smoothing=1.0)
    assert loss(student, None, torch.tensor([0, 1, 2])) == loss(student, None, torch.tensor([4, 4, 4]))


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ConfigError, match="label_smoothing"):
        LOSSES["ce"](label_smoothing=smoothing)
