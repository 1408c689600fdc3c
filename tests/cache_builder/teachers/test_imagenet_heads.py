"""Names of ImageNet's classes, from what a model says of its training."""

from __future__ import annotations

import sys

import pytest
from torch import nn

from cache_builder.teachers import TeacherRequest, open_teacher
from cache_builder.teachers.imagenet_heads import imagenet_names_of, names_of_set
from tests.cache_builder.models import small


def head(config: object, classes: int = 1000) -> nn.Module:
    model = small(classes)
    model.pretrained_cfg = config  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    "said", [{"tag": "a1_in1k"}, {"tag": "in21k_ft_in1k"}, {"hf_hub_id": "timm/resnet50.a1_in1k"}]
)
def test_a_tag_says_imagenet(said: dict[str, str]) -> None:
    names = imagenet_names_of(head({"num_classes": 1000} | said))
    assert names is not None
    assert len(names) == 1000
    assert names[0].startswith("tench")


@pytest.mark.parametrize(
    "model",
    [
        head({"num_classes": 1000, "tag": "my_own_thousand"}),
        head({"num_classes": 1000, "tag": "a1_in1k"}, classes=10),
        head({"num_classes": 10, "tag": "a1_in1k"}, classes=10),
        head({"tag": "a1_in1k"}),
        head("a1_in1k"),
        small(1000),
        nn.Flatten(),
    ],
)
def test_nothing_is_made_up(model: nn.Module) -> None:
    assert imagenet_names_of(model) is None


def test_names_of_the_configuration_come_first() -> None:
    config = {"num_classes": 3, "tag": "in1k", "label_names": ["a", "b", "c"]}
    assert imagenet_names_of(head(config, classes=3)) == ("a", "b", "c")


def test_torchvision_knows_them_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.data", None)
    names = names_of_set(1000)
    assert names is not None
    assert names[:2] == ("tench", "goldfish")
    assert names_of_set(21841) is None


def in1k() -> nn.Module:
    """A factory, as a package of models would have it."""
    return head({"num_classes": 1000, "tag": "in1k", "mean": [0.5] * 3, "std": [0.5] * 3})


def test_a_factory_brings_them() -> None:
    teacher = open_teacher(f"{__name__}:in1k", TeacherRequest())
    assert teacher.class_names is not None
    assert teacher.class_names[1].startswith("goldfish")
    assert teacher.preprocessing.origin == "from the model's pretrained_cfg"
    assert open_teacher(f"{__name__}:in1k", TeacherRequest(weights="random")).class_names is None
