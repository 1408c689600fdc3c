from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cache_builder.tensors.normalise import Normalise, normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def with_module(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    found: Tensor = Normalise(mean, std)(images)
    return found


@pytest.mark.parametrize("form", [normalise, with_module])
def test_it_subtracts_the_mean_and_divides_by_the_deviation(form) -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    found = form(images, (0.5, 0.1, 0.0), (0.5, 0.2, 2.0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[1, :, 2, 2], torch.tensor([-1.0, 0.5, 0.5]))


def test_a_student_sees_what_the_teacher_saw() -> None:
    images = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256, 256)
    torch.testing.assert_close(Normalise(MEAN, STD)(images), normalise(images, MEAN, STD))


def test_normalising_adds_nothing_to_a_state() -> None:
    assert Normalise(MEAN, STD).state_dict() == {}
