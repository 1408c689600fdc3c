from __future__ import annotations

import pytest
import torch

from cache_builder.format.errors import ConfigError
from tests.trainer.losses.cases import batch
from tests.trainer.losses.reference import taid_schedule
from trainer.losses import LOSSES


def test_taid_at_one_is_cross_entropy_to_the_teacher():
    student, teacher, labels = batch()
    torch.testing.assert_close(
        LOSSES["taid"](start=1.0)(student, teacher, labels), LOSSES["forward_ce"]()(student, teacher, labels)
    )


def test_taid_at_zero_is_the_students_own_entropy_and_pulls_nowhere():
    student, teacher, labels = batch()
    (gradient,) = torch.autograd.grad(LOSSES["taid"](start=0.0)(student, teacher, labels), student)
    assert gradient.abs().max().item() < 1e-15


@pytest.mark.parametrize("step", [5e-4, 0.05])
def test_the_ratio_moves_as_published(step):
    values = [3.0, 2.5, 2.6, 1.0, 0.9, 4.0, 0.5]
    progress = [(i + 1) / 200 for i in range(len(values))]
    loss = LOSSES["taid"](start=0.2, end=0.8, momentum=0.9, step=step)
    found = []
    for value, done in zip(values, progress, strict=True):
        loss.advance(torch.tensor(value, dtype=torch.float64), done)
        found.append(loss.get_buffer("ratio").item())
    assert found == pytest.approx(taid_schedule(values, progress, 0.2, 0.8, 0.9, step), rel=1e-12)
    assert found[0] == 0.2  # the first step only notes its value


def test_the_ratio_never_falls_and_ends_at_the_end():
    loss = LOSSES["taid"](start=0.4, end=0.7)
    ratios = []
    for step in range(100):
        loss.advance(torch.tensor(1.0 + step % 3), (step + 1) / 100)
        ratios.append(loss.get_buffer("ratio").item())
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(0.7)


def test_the_end_lies_behind_the_start():
    with pytest.raises(ConfigError, match="end must lie in start to 1"):
        LOSSES["taid"](start=0.9, end=0.5)
