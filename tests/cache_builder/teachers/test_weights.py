from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import Teacher, TeacherRequest, open_teacher
from cache_builder.teachers.weights import read_weights, weights_digest

CLASSES = 7


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(models.squeezenet1_1(num_classes=CLASSES).state_dict())


def opened(path: Path, **request: Any) -> Teacher:
    return open_teacher("squeezenet1_1", TeacherRequest(weights=str(path), **request))


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


class TestForms:
    @pytest.fixture
    def plain(self, state: dict[str, Tensor], tmp_path: Path) -> Teacher:
        return opened(save(tmp_path / "plain.pt", state))

    def test_state_dict_with_its_own_head(self, plain: Teacher, state: dict[str, Tensor]) -> None:
        assert plain.model(torch.zeros(1, 3, 64, 64)).shape == (1, CLASSES)
        assert plain.weights == "plain.pt"
        for name, value in plain.model.state_dict().items():
            assert torch.equal(value, state[name])

    def test_safetensors(self, plain: Teacher, state: dict[str, Tensor], tmp_path: Path) -> None:
        save_file(state, tmp_path / "a.safetensors")
        assert opened(tmp_path / "a.safetensors").digest == plain.digest

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
    def test_wrapped(self, plain: Teacher, state: dict[str, Tensor], tmp_path: Path, key: str) -> None:
        path = save(tmp_path / "a.pth", {"epoch": 3, "lr": 0.1, key: state})
        assert opened(path).digest == plain.digest

    def test_wrapped_twice(self, plain: Teacher, state: dict[str, Tensor], tmp_path: Path) -> None:
        path = save(tmp_path / "a.pth", {"model": {"state_dict": state, "version": 2}})
        assert opened(path).digest == plain.digest

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    def test_prefixes(self, plain: Teacher, state: dict[str, Tensor], tmp_path: Path, prefix: str) -> None:
        path = save(tmp_path / "a.pth", {prefix + name: value for name, value in state.items()})
        assert opened(path).digest == plain.digest

    def test_half_precision_file(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        path = save(tmp_path / "a.pth", {name: value.half() for name, value in state.items()})
        assert opened(path).model.state_dict()["classifier.1.bias"].dtype == torch.float32

    def test_home(self, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "a.pth", state)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert opened(Path("~/a.pth")).weights == "a.pth"


class TestMetadata:
    def write(self, state: dict[str, Tensor], path: Path, card: object) -> Path:
        save_file(state, path, metadata={"kdcache": card if isinstance(card, str) else json.dumps(card)})
        return path

    def test_names_and_preprocessing(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        card = {
            "class_names": list("abcdefg"),
            "input_size": 96,
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "interpolation": "bicubic",
            "crop_fraction": 1.0,
            "student": "another key",
        }
        teacher = opened(self.write(state, tmp_path / "a.safetensors", card))
        wanted = teacher.preprocessing
        assert teacher.class_names == tuple("abcdefg")
        assert (wanted.input_size, wanted.mean, wanted.std) == (96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert (wanted.interpolation, wanted.crop_fraction) == ("bicubic", 1.0)

    def test_what_is_not_said_is_the_models_own(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        teacher = opened(self.write(state, tmp_path / "a.safetensors", {"mean": [0.5, 0.5, 0.5]}))
        assert teacher.preprocessing.mean == (0.5, 0.5, 0.5)
        assert teacher.preprocessing.input_size == 224
        assert teacher.class_names is None

    @pytest.mark.parametrize(
        "card",
        [
            "{",
            [1],
            {"mean": 3},
            {"mean": [1, 2]},
            {"std": [0, 1, 1]},
            {"interpolation": "lanczos"},
            {"input_size": "big"},
            {"crop_fraction": 0},
        ],
    )
    def test_damaged(self, state: dict[str, Tensor], tmp_path: Path, card: object) -> None:
        path = self.write(state, tmp_path / "a.safetensors", card)
        with pytest.raises(DataError, match=r"a\.safetensors"):
            opened(path)


class TestRefused:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.pt does not exist .*default, random or a FILE"):
            opened(tmp_path / "none.pt")

    def test_another_architecture(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.pt", models.resnet18(num_classes=CLASSES).state_dict())
        with pytest.raises(ConfigError, match=r"missing features\.0\.weight.*and \d+ more"):
            opened(path)

    def test_wrong_shapes(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        path = save(tmp_path / "a.pt", state | {"features.0.weight": torch.zeros(64, 3, 5, 5)})
        with pytest.raises(
            ConfigError, match=r"features\.0\.weight is \[64, 3, 5, 5\], the model has \[64, 3, 3, 3\]"
        ):
            opened(path)

    def test_missing_and_unexpected(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        renamed = {name.replace("features.0.bias", "stem.bias"): value for name, value in state.items()}
        with pytest.raises(ConfigError, match=r"missing features\.0\.bias; unexpected stem\.bias"):
            opened(save(tmp_path / "a.pt", renamed))

    def test_a_scalar_where_the_head_should_be(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        path = save(tmp_path / "a.pt", state | {"classifier.1.bias": torch.tensor(1.0)})
        with pytest.raises(ConfigError, match=r"classifier\.1\.bias is \[\]"):
            opened(path)

    @pytest.mark.parametrize(
        "content", [{"epoch": 3}, {}, [1, 2], 7, {"optimizer": {"lr": 1}}, {"a": {"b": 1}, 5: 6}], ids=str
    )
    def test_no_state_dict(self, tmp_path: Path, content: object) -> None:
        with pytest.raises(DataError, match=r"a\.pt hold no state dict"):
            read_weights(save(tmp_path / "a.pt", content))

    @pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100)])
    def test_other_files(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"is empty|neither safetensors nor|whole|hold no state dict"):
            read_weights(tmp_path / name)

    def test_truncated_safetensors(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DataError, match="neither safetensors"):
            read_weights(path)


class _Touch:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"weight": _Touch(mark)}))
    else:
        torch.save({"weight": _Touch(mark)}, path)
    with pytest.raises(DataError, match=r"neither safetensors nor|no code of a file is run"):
        read_weights(path)
    assert not mark.exists()
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert mark.exists(), "the attack itself must work"


class TestDigest:
    def test_names_values_and_types_count(self) -> None:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        digest = weights_digest(model)
        assert weights_digest(nn.Sequential(model)) != digest
        assert weights_digest(nn.Linear(3, 2).double()) != digest
        with torch.no_grad():
            model.bias[0] += 1e-6
        assert weights_digest(model) != digest

    def test_buffers_and_odd_types(self) -> None:
        model = nn.BatchNorm1d(3).bfloat16()
        digest = weights_digest(model)
        model.running_mean[0] = 1  # type: ignore[index]
        assert weights_digest(model) != digest

    def test_memory_format_does_not(self) -> None:
        model = nn.Conv2d(3, 8, 3)
        digest = weights_digest(model)
        assert weights_digest(model.to(memory_format=torch.channels_last)) == digest  # type: ignore[call-overload]

    def test_pinned(self) -> None:
        model = nn.Linear(2, 1)
        model.load_state_dict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})
        assert weights_digest(model) == PINNED


PINNED = "42cfaa5c68d553da"
