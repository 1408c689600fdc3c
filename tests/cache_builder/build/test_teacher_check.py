"""A teacher that answers by chance, by its batch or with probabilities is found before hours are spent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cache_builder.build.teacher_check import check_members, check_teacher
from cache_builder.format.errors import ConfigError

IMAGES = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def linear(classes: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, classes))


def forward(*more: nn.Module, before: nn.Module | None = None):  # type: ignore[no-untyped-def]
    model = nn.Sequential(before or nn.Identity(), linear(), *more)
    return lambda images: model(images.float() / 255 - 0.5).detach()


def test_an_ordinary_teacher_is_left_alone() -> None:
    assert check_teacher(forward(), IMAGES, False) == []


def test_a_single_picture_is_enough() -> None:
    assert check_teacher(forward(), IMAGES[:1], False) == []


def test_chance_is_refused_unless_allowed() -> None:
    by_chance = forward(before=nn.Dropout(0.5))
    with pytest.raises(ConfigError, match=r"run twice.*dropout.*--allow-unrepeatable"):
        check_teacher(by_chance, IMAGES, False)
    assert "run twice" in check_teacher(by_chance, IMAGES, True)[0]


def test_an_answer_that_depends_on_the_batch_is_refused() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    with pytest.raises(ConfigError, match=r"depends on the batch.*running statistics"):
        check_teacher(forward(before=norm), IMAGES, False)


def test_a_masked_class_hides_no_chance() -> None:
    def masked(images: Tensor) -> Tensor:
        logits: Tensor = torch.randn(len(images), 6)
        logits[:, 2] = -1e9
        return logits

    with pytest.raises(ConfigError, match="run twice"):
        check_teacher(masked, IMAGES, False)


def test_probabilities_are_refused_and_their_logarithm_is_not() -> None:
    with pytest.raises(ConfigError, match="gives probabilities"):
        check_teacher(forward(nn.Softmax(dim=1)), IMAGES, False)
    assert check_teacher(forward(nn.LogSoftmax(dim=1)), IMAGES, False) == []


def test_a_sigmoid_and_a_constant_are_told() -> None:
    assert "sigmoid" in check_teacher(forward(nn.Sigmoid()), IMAGES, False)[0]
    assert "same answer" in check_teacher(lambda images: torch.ones(len(images), 6) * 3, IMAGES, False)[0]


def test_a_member_that_gives_probabilities_is_named() -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    members = [
        ("logits", lambda pictures: torch.randn(len(pictures), 5)),
        ("soft", lambda pictures: torch.randn(len(pictures), 5).softmax(dim=1)),
    ]
    with pytest.raises(ConfigError, match="member soft"):
        check_members(members, images)
