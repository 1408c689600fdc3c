from __future__ import annotations

import pytest
import torch
from torch import nn

from cache_builder.format.errors import ConfigError
from trainer.students import SMALL_STUDENTS, cnn3, make_student, resnet20, student_names


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL_STUDENTS)
@pytest.mark.parametrize("size", [8, 28, 32])
def test_small_students_take_small_images(name, size):
    student = make_student(name, num_classes=7, image_size=size)
    assert student(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_resnet20_is_the_papers():
    """0.27 M weights (table 6 of the paper) and 20 weighted layers."""
    model = resnet20()
    assert parameters(model) == 269_722
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 20


def test_width_is_an_option():
    assert parameters(make_student("cnn3(width=8)", 10, 8)) == parameters(cnn3(width=8)) < parameters(cnn3())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_torchvision_models_by_name_have_one_output(name):
    student = make_student(name, num_classes=7, image_size=64)
    assert student(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_transformers_are_told_the_image_size():
    student = make_student("vit_b_32", num_classes=3, image_size=64).eval()
    assert student(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_factory_by_its_path():
    student = make_student("trainer.students:cnn3(width=4)", num_classes=3, image_size=8)
    assert student(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


def image_size_of(num_classes: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))


def test_a_factory_that_asks_gets_the_image_size():
    student = make_student(f"{__name__}:image_size_of", num_classes=3, image_size=6)
    assert student(torch.zeros(1, 3, 6, 6)).shape == (1, 3)


def not_a_module(num_classes: int) -> int:
    return num_classes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet19", "unknown student 'resnet19': did you mean .*'resnet18'"),
        ("cnn3(wdth=8)", "wdth"),
        ("cnn3(", "character 6"),
        ("no_such_package:factory", "No module named 'no_such_package'"),
        ("trainer.students:no_such", "has no attribute 'no_such'"),
        (f"{__name__}:not_a_module", "gave int, not a torch.nn.Module"),
    ],
)
def test_wrong_students_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_student(spec, 10, 32)


def test_all_names_are_listed():
    assert {"cnn3", "resnet20", "resnet18", "vit_l_16"} <= set(student_names())
