"""A student with an auxiliary head as a teacher: it answers as it did for kdtrain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import TeacherRequest, open_teacher
from cache_builder.tensors.heads import DualHead, HeadSpec

CLASSES = 3


def small(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, num_classes))


def convolutions(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def write(path: Path, model: nn.Module, aux_head: object, **more: object) -> str:
    card = {"classes": CLASSES, "class_names": ["a", "b", "c"], "input_size": 2, "aux_head": aux_head, **more}
    save_file(model.state_dict(), path, metadata={"kdcache": json.dumps(card)})
    return str(path)


def images() -> Tensor:
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mix", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_it_answers_with_both_heads(tmp_path: Path, kind: str, mix: float) -> None:
    torch.manual_seed(0)
    spec = HeadSpec.model_validate({"kind": kind, "mix": mix, "temperature": 2.0, "hidden": 4})
    student = DualHead(small(CLASSES), spec, CLASSES).eval()
    weights = write(tmp_path / "w.safetensors", student, spec.model_dump())
    teacher = open_teacher(f"{__name__}:small", TeacherRequest(weights=weights))
    assert torch.equal(teacher.model(images()), student(images()))
    assert teacher.class_names == ("a", "b", "c")
    main_alone = torch.equal(teacher.model(images()), student.network(images()))
    assert main_alone == (mix == 0)


def test_a_torchvision_student_with_two_heads(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    spec = HeadSpec(kind="linear", mix=0.5)
    resnet = DualHead(models.resnet18(num_classes=CLASSES), spec, CLASSES).eval()
    weights = write(tmp_path / "w.safetensors", resnet, spec.model_dump())
    teacher = open_teacher("resnet18", TeacherRequest(weights=weights))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.model(x), resnet(x))


def test_a_file_without_a_head_is_as_before(tmp_path: Path) -> None:
    weights = write(tmp_path / "w.safetensors", small(CLASSES), None)
    teacher = open_teacher(f"{__name__}:small", TeacherRequest(weights=weights))
    assert not isinstance(teacher.model, DualHead)


def test_a_damaged_card_and_another_architecture_are_refused(tmp_path: Path) -> None:
    student = DualHead(small(CLASSES), HeadSpec(kind="linear"), CLASSES)
    for aux_head in ({"kind": "cubic"}, "linear", {}):
        weights = write(tmp_path / "w.safetensors", student, aux_head)
        with pytest.raises(DataError, match=r"what is said of weights w\.safetensors is damaged"):
            open_teacher(f"{__name__}:small", TeacherRequest(weights=weights))
    weights = write(tmp_path / "w.safetensors", student, {"kind": "linear"})
    with pytest.raises(ConfigError, match="Sequential has no Linear layer with 3 outputs"):
        open_teacher(f"{__name__}:convolutions", TeacherRequest(weights=weights))
