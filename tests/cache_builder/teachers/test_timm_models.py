from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import Preprocessing, Teacher, TeacherRequest, open_teacher

timm = pytest.importorskip("timm", reason="timm is optional: pip install 'kdcache[timm]'")


def opened(name: str, **request: object) -> Teacher:
    usual: dict[str, object] = {"weights": "random", "data_classes": 7}
    return open_teacher(f"timm:{name}", TeacherRequest(**(usual | request)))  # type: ignore[arg-type]


def classes(teacher: Teacher, side: int = 64) -> int:
    with torch.inference_mode():
        return int(teacher.model(torch.zeros(1, 3, side, side)).shape[1])


class TestPreprocessing:
    def test_is_timms_own(self) -> None:
        assert opened("resnet10t").preprocessing == Preprocessing(
            176, interpolation="bicubic", crop_fraction=0.875
        )
        half = (0.5, 0.5, 0.5)
        assert opened("test_resnet").preprocessing == Preprocessing(160, half, half, "bilinear", 0.95)

    @pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_convnext", "test_efficientnet"])
    def test_agrees_with_timms_transform(self, name: str) -> None:
        """Evaluation by timm itself: its resize, crop and normalisation."""
        teacher = opened(name)
        config = timm.data.resolve_model_data_config(teacher.model)
        transform = {type(step).__name__: step for step in timm.data.create_transform(**config).transforms}
        seen = teacher.preprocessing
        assert transform["CenterCrop"].size == (seen.input_size, seen.input_size)
        assert transform["Resize"].size == int(seen.input_size / seen.crop_fraction)
        assert transform["Resize"].interpolation.value == seen.interpolation
        torch.testing.assert_close(transform["Normalize"].mean, torch.tensor(seen.mean))
        torch.testing.assert_close(transform["Normalize"].std, torch.tensor(seen.std))

    def test_an_interpolation_that_is_not_here_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lanczos(model: object) -> dict[str, object]:
            return known(model) | {"interpolation": "lanczos"}

        known = timm.data.resolve_model_data_config
        monkeypatch.setattr(timm.data, "resolve_model_data_config", lanczos)
        seen = opened("test_resnet").preprocessing
        assert seen.interpolation == "bicubic"
        assert "names 'lanczos' as interpolation: bicubic is the nearest" in seen.in_words()


class TestRandom:
    def test_a_function_of_the_seed(self) -> None:
        first, again, other = opened("test_resnet"), opened("test_resnet"), opened("test_resnet", seed=1)
        assert first.digest == again.digest != other.digest
        assert (first.spec, first.weights) == ("timm:test_resnet", "random (seed 0)")
        assert not any(module.training for module in first.model.modules())

    def test_classes(self) -> None:
        assert classes(opened("test_resnet")) == 7
        assert classes(opened("test_resnet", data_classes=None)) == 1000
        assert opened("test_resnet").class_names is None

    @pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_convnext"])
    def test_tell_pictures_apart(self, name: str) -> None:
        pixels = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert opened(name).model(pixels).std(dim=0).max() > 1e-4


class TestInputSize:
    def test_transformers_are_fitted_to_it(self) -> None:
        teacher = opened("test_vit3", input_size=96)
        assert classes(teacher, 96) == 7
        assert teacher.digest != opened("test_vit3").digest
        with pytest.raises(AssertionError):
            classes(opened("test_vit3"), 96)

    def test_others_take_any(self) -> None:
        assert opened("test_resnet", input_size=96).digest == opened("test_resnet").digest

    def test_one_that_cannot_be(self) -> None:
        with pytest.raises(ConfigError, match="cannot be fitted to 3 pixels"):
            opened("test_vit", input_size=3)


class TestFile:
    def test_what_is_assumed_of_it_is_said(self, tmp_path: Path) -> None:
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "a.pth")
        said = opened("test_resnet", weights=str(tmp_path / "a.pth")).preprocessing.in_words()
        assert "from timm's configuration of this model, assumed for this weights file; if it was" in said
        assert "assumed" not in opened("test_resnet").preprocessing.in_words()

    def test_a_state_dict_decides_the_classes(self, tmp_path: Path) -> None:
        trained = timm.create_model("test_resnet", num_classes=5).eval()
        torch.save({"state_dict": trained.state_dict()}, tmp_path / "a.pth")
        teacher = opened("test_resnet", weights=str(tmp_path / "a.pth"))
        pixels = torch.rand(2, 3, 64, 64)
        assert torch.equal(teacher.model(pixels), trained(pixels))
        assert teacher.weights == "a.pth"

    @pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
    def test_of_all_classes(self, tmp_path: Path, name: str) -> None:
        trained = timm.create_model(name)
        save_file(trained.state_dict(), tmp_path / "a.safetensors")
        assert classes(opened(name, weights=str(tmp_path / "a.safetensors")), 160) == 1000

    def test_a_students_file_says_what_it_was_trained_on(self, tmp_path: Path) -> None:
        trained = timm.create_model("test_vit", num_classes=3, img_size=96).eval()
        card = {"class_names": ["a", "b", "c"], "input_size": 96, "mean": [0.1, 0.2, 0.3]}
        path = tmp_path / "a.safetensors"
        save_file(trained.state_dict(), path, metadata={"kdcache": json.dumps(card)})
        teacher = opened("test_vit", weights=str(path))
        assert teacher.class_names == ("a", "b", "c")
        assert (teacher.preprocessing.input_size, teacher.preprocessing.mean) == (96, (0.1, 0.2, 0.3))
        pixels = torch.rand(2, 3, 96, 96)
        assert torch.equal(teacher.model(pixels), trained(pixels))

    def test_of_another_model(self, tmp_path: Path) -> None:
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "a.safetensors")
        with pytest.raises(ConfigError, match="do not fit the teacher: missing"):
            opened("test_vit", weights=str(tmp_path / "a.safetensors"))


class TestPublished:
    def test_bring_their_class_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        create = timm.create_model
        monkeypatch.setattr(
            timm, "create_model", lambda name, pretrained: create(name, pretrained=False)
        )  # as if they had been fetched
        teacher = opened("test_resnet", weights="default")
        assert teacher.weights == "timm/test_resnet.r160_in1k"
        assert teacher.class_names is not None
        assert (len(teacher.class_names), teacher.class_names[0]) == (1000, "tench, Tinca tinca")

    def test_that_cannot_be_fetched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(
            DataError,
            match=r"weights of timm:resnet10t are not on this machine .*--weights FILE, or --weights",
        ):
            opened("resnet10t", weights="default")

    def test_that_do_not_exist(self) -> None:
        with pytest.raises(ConfigError, match="timm publishes no weights of botnet50ts_256: give --weights"):
            opened("botnet50ts_256", weights="default")


class TestNames:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("resnet10", r"unknown timm teacher 'resnet10': did you mean .*'resnet10t'"),
            ("vit_base_patch16_223", "did you mean .*'vit_base_patch16_224'"),
            (
                "test_resnet.a2_in1k",
                r"unknown weights 'test_resnet\.a2_in1k': timm has test_resnet\.r160_in1k",
            ),
            ("botnet50ts_256.in1k", "timm publishes no weights of botnet50ts_256"),
            ("", "unknown timm teacher ''"),
        ],
    )
    def test_unknown(self, name: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            opened(name)

    def test_a_tag_is_part_of_the_name(self) -> None:
        assert opened("test_resnet.r160_in1k").spec == "timm:test_resnet.r160_in1k"

    def test_without_timm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ConfigError, match=r"timm:resnet10t needs timm: pip install 'kdcache\[timm\]'"):
            opened("resnet10t")
