"""The model that is rebuilt is the model that was saved, whatever the training script wrapped it in."""

from __future__ import annotations

import argparse
import datetime
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import Teacher, TeacherRequest, open_teacher
from cache_builder.teachers.state_dicts import fitted_names, inner_state
from cache_builder.teachers.weights import read_weights

CLASSES = 7


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(models.resnet18(num_classes=CLASSES).state_dict())


@pytest.fixture(scope="module")
def digest(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plain") / "plain.pt"
    torch.save(state, path)
    return opened(path).digest


def opened(path: Path | str, name: str = "resnet18") -> Teacher:
    return open_teacher(name, TeacherRequest(weights=str(path)))


@pytest.mark.parametrize("prefix", ["model.", "net.", "student.model.", "module._orig_mod.", "anything."])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_any_common_prefix_in_any_kind_of_file(
    state: dict[str, Tensor], digest: str, tmp_path: Path, prefix: str, kind: str
) -> None:
    renamed = {prefix + name: value.clone() for name, value in state.items()}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.ckpt")
    save_file(renamed, path) if kind == "safetensors" else torch.save({"state_dict": renamed}, path)
    assert opened(path).digest == digest


def test_what_stands_under_another_prefix_is_left_out(
    state: dict[str, Tensor], digest: str, tmp_path: Path
) -> None:
    mixed = {"model." + name: value for name, value in state.items()} | {"criterion.weight": torch.ones(3)}
    torch.save({"state_dict": mixed}, tmp_path / "l.ckpt")
    assert opened(tmp_path / "l.ckpt").digest == digest


def test_two_models_in_one_file_are_not_guessed_between(state: dict[str, Tensor]) -> None:
    both = {"a." + name: value for name, value in state.items()}
    both |= {"b." + name: value + 1 for name, value in state.items()}
    with pytest.raises(DataError, match=r"'a\.' and 'b\.' fit alike"):
        fitted_names(both, state, "w.pth")


def test_a_prefix_that_does_not_fit_is_shown(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model.other." + name + "x": value for name, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"missing conv1\.weight.*unexpected .*conv1\.weightx"):
        opened(tmp_path / "w.pth")


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
def test_averaged_weights_are_taken_and_told_and_the_raw_ones_can_be_chosen(
    state: dict[str, Tensor], digest: str, tmp_path: Path, averaged: str
) -> None:
    raw = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": raw, averaged: state, "epoch": 3}, tmp_path / "ck.pth")
    found = opened(tmp_path / "ck.pth")
    assert found.digest == digest
    assert "EMA" in found.weights
    assert f"#{averaged}" in found.weights
    assert "'state_dict'" in found.weights
    chosen = opened(f"{tmp_path / 'ck.pth'}#state_dict")
    assert chosen.digest != digest
    assert chosen.weights == "ck.pth#state_dict"
    with pytest.raises(DataError, match="no entry 'nothing'; there is state_dict"):
        opened(f"{tmp_path / 'ck.pth'}#nothing")


@pytest.mark.parametrize("key", ["net", "network", "params"])
def test_other_wrappers(state: dict[str, Tensor], digest: str, tmp_path: Path, key: str) -> None:
    torch.save({key: {"state_dict": state}}, tmp_path / "a.pth")
    assert opened(tmp_path / "a.pth").digest == digest


def test_torchs_own_averaged_model(state: dict[str, Tensor], digest: str, tmp_path: Path) -> None:
    model = models.resnet18(num_classes=CLASSES)
    model.load_state_dict(state)
    torch.save(torch.optim.swa_utils.AveragedModel(model).state_dict(), tmp_path / "a.pth")
    assert opened(tmp_path / "a.pth").digest == digest


def test_harmless_objects_beside_the_weights(state: dict[str, Tensor], digest: str, tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.9),
        "when": datetime.datetime(2026, 1, 1),
    }
    torch.save({"state_dict": state, "at": Path("x"), **beside}, tmp_path / "a.pth.tar")
    assert opened(tmp_path / "a.pth.tar").digest == digest


class Configuration:
    """Something of a training script."""


def test_other_objects_are_named_with_the_remedy(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state, "config": Configuration()}, tmp_path / "a.pth")
    with pytest.raises(
        DataError, match=r"test_state_dicts\.Configuration.*torch\.save\(model\.state_dict"
    ) as found:
        opened(tmp_path / "a.pth")
    assert "\x1b" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GGUF\x03\x00", "GGUF"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"", "empty"),
    ],
    ids=["lfs", "page", "gguf", "hdf5", "empty"],
)
def test_what_is_no_weights_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / "w.pth")


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch leaves it behind; users' files stay
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "s.pt")
    with pytest.raises(DataError, match="TorchScript"):
        read_weights(tmp_path / "s.pt")


def test_a_folder_with_parts_and_their_index(state: dict[str, Tensor], digest: str, tmp_path: Path) -> None:
    names = list(state)
    places = {}
    for part, chosen in (("a.safetensors", names[:40]), ("b.safetensors", names[40:])):
        save_file({name: state[name].clone() for name in chosen}, tmp_path / part)
        places |= dict.fromkeys(chosen, part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert opened(tmp_path).digest == digest
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(DataError, match=r"b\.safetensors does not exist"):
        opened(tmp_path)


def test_without_the_counters_that_evaluation_never_reads(
    state: dict[str, Tensor], digest: str, tmp_path: Path
) -> None:
    old = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    torch.save(old, tmp_path / "old.pth")
    assert opened(tmp_path / "old.pth").digest == digest


@pytest.mark.parametrize("aux", [True, False])
def test_with_and_without_auxiliary_heads_as_published(tmp_path: Path, aux: bool) -> None:
    torch.manual_seed(0)
    saved = models.googlenet(num_classes=3, aux_logits=aux, init_weights=False).eval()
    saved.transform_input = True
    torch.save(saved.state_dict(), tmp_path / "g.pth")
    found = opened(tmp_path / "g.pth", "googlenet")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(pixels), saved(pixels))
    assert "transform_input=True" in found.weights


def test_a_transformer_of_another_image_size(tmp_path: Path) -> None:
    torch.save(models.vit_b_32(num_classes=3, image_size=96).state_dict(), tmp_path / "v.pth")
    found = opened(tmp_path / "v.pth", "vit_b_32")
    assert found.preprocessing.input_size == 96
    assert found.model(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_the_same_shapes_under_other_names_want_a_word(
    state: dict[str, Tensor], digest: str, tmp_path: Path
) -> None:
    torch.save({f"layer{index}.w": value for index, value in enumerate(state.values())}, tmp_path / "o.pth")
    with pytest.raises(ConfigError, match=r"in the same order.*#by-order"):
        opened(tmp_path / "o.pth")
    assert opened(f"{tmp_path / 'o.pth'}#by-order").digest == digest


def test_files_beside_the_weights_say_how_pictures_are_shown(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "model.safetensors")
    said: dict[str, Any] = {"mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "input_size": [3, 96, 96]}
    config = {"pretrained_cfg": said | {"interpolation": "bicubic", "crop_pct": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = opened(tmp_path).preprocessing
    assert (found.mean, found.input_size, found.interpolation) == ((0.4, 0.4, 0.4), 96, "bicubic")
    assert "config.json" in found.in_words()
    processor = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 128},
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = opened(tmp_path).preprocessing
    assert (found.mean, found.input_size, found.interpolation) == ((0.5, 0.5, 0.5), 128, "bilinear")


def test_nested_entries_are_followed() -> None:
    found, origin = inner_state({"state_dict": {"model": {"w": torch.ones(1)}}}, None, "f")
    assert list(found) == ["w"]
    assert origin == "f"
