from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from torchvision import models

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import ALIASES, Preprocessing, TeacherRequest, open_teacher
from cache_builder.teachers.torchvision_models import names

RANDOM = TeacherRequest(weights="random", data_classes=7)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_name_classifiers(alias: str) -> None:
    assert ALIASES[alias] in names()
    assert alias not in names()


def test_vit_l_is_vit_l_16() -> None:
    assert ALIASES["vit_l"] == "vit_l_16"


@pytest.mark.parametrize(
    ("name", "nearest"), [("vit_xl", "vit_l"), ("resnet51", "resnet50"), ("convnext_larg", "convnext_large")]
)
def test_unknown_names_are_told_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown teacher '{name}': did you mean .*'{nearest}'"):
        open_teacher(name, RANDOM)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fcn_resnet50", "raft_small"])
def test_what_is_no_classifier_is_unknown(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown teacher"):
        open_teacher(name, RANDOM)


def test_random_weights_are_a_function_of_the_seed() -> None:
    first, again = (open_teacher("resnet18", RANDOM) for _ in range(2))
    other = open_teacher("resnet18", TeacherRequest(weights="random", data_classes=7, seed=1))
    assert first.digest == again.digest != other.digest
    assert first.weights == "random (seed 0)"
    assert first.spec == "torchvision:resnet18"


def test_random_head_has_the_data_sets_classes() -> None:
    pixels = torch.zeros(1, 3, 64, 64)
    assert open_teacher("resnet18", RANDOM).model(pixels).shape == (1, 7)
    assert open_teacher("resnet18", TeacherRequest(weights="random")).model(pixels).shape == (1, 1000)


def test_a_teacher_is_frozen_and_evaluates() -> None:
    model = open_teacher("resnet18", RANDOM).model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_preprocessing_is_the_published_weights_own() -> None:
    efficient = open_teacher("efficientnet_b1", RANDOM).preprocessing
    assert efficient == Preprocessing(240, interpolation="bilinear", crop_fraction=240 / 255)
    assert open_teacher("resnet18", RANDOM).preprocessing == Preprocessing(224, crop_fraction=224 / 256)


def test_what_is_assumed_of_a_file_is_said(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "a.pth")
    seen = open_teacher("resnet18", TeacherRequest(weights=str(tmp_path / "a.pth"))).preprocessing
    assert "torchvision's published weights of this model, assumed for this weights file" in seen.in_words()
    assert "assumed" not in open_teacher("resnet18", RANDOM).preprocessing.in_words()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_with_auxiliary_heads_give_logits(name: str) -> None:
    teacher = open_teacher(name, RANDOM)
    with torch.inference_mode():
        assert teacher.model(torch.zeros(1, 3, 96, 96)).shape == (1, 7)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torchvision looks for resnet18's weights before it fetches them; nothing can be fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / Path(urlparse(models.ResNet18_Weights.DEFAULT.url).path).name


def test_published_weights_bring_class_names(published: Path) -> None:
    model = models.resnet18(weights=None)
    torch.save(model.state_dict(), published)
    teacher = open_teacher("resnet18", TeacherRequest())
    assert teacher.weights == "ResNet18_Weights.IMAGENET1K_V1"
    assert teacher.class_names is not None
    assert len(teacher.class_names) == 1000
    assert teacher.class_names[0] == "tench"
    assert torch.equal(teacher.model.state_dict()["fc.bias"], model.fc.bias)


def test_published_weights_that_cannot_be_fetched(published: Path) -> None:
    with pytest.raises(DataError, match=r"resnet18 are not on this machine.*--weights random"):
        open_teacher("resnet18", TeacherRequest())


def test_published_weights_that_are_damaged(published: Path) -> None:
    published.write_bytes(b"not weights")
    with pytest.raises(DataError, match="damaged: remove them"):
        open_teacher("resnet18", TeacherRequest())
