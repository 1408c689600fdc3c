from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cache_builder.format.errors import ConfigError
from cache_builder.teachers import Preprocessing, Teacher, TeacherRequest, open_teacher
from tests.cache_builder.models import small

HERE = "tests.cache_builder.models"
FALLBACK = Preprocessing(input_size=24, mean=(0.1, 0.1, 0.1))


def opened(name: str, weights: str = "default", data_classes: int | None = 9) -> Teacher:
    return open_teacher(
        name, TeacherRequest(weights=weights, data_classes=data_classes, fallback=FALLBACK, seed=4)
    )


def classes(teacher: Teacher) -> int:
    return int(teacher.model(torch.zeros(1, 3, 24, 24)).shape[1])


def test_a_factory_that_takes_num_classes_gets_the_data_sets() -> None:
    teacher = opened(f"{HERE}:small")
    assert classes(teacher) == 9
    assert (teacher.spec, teacher.weights) == (f"{HERE}:small", "the factory's own")
    assert teacher.preprocessing == FALLBACK
    assert not teacher.model.training


def test_what_is_assumed_is_said_with_the_way_out() -> None:
    said = opened(f"{HERE}:small").preprocessing.in_words()
    assert said.startswith(
        "24 px, bilinear, mean 0.1 0.1 0.1, std 0.229 0.224 0.225: what suits the pictures"
    )
    assert said.endswith("if it was trained otherwise, say so with --mean, --std and --input-size")
    usual = open_teacher(f"{HERE}:small", TeacherRequest()).preprocessing.in_words()
    assert "ImageNet's mean and std, assumed, for the model says nothing" in usual


def test_without_classes_its_default() -> None:
    assert classes(opened(f"{HERE}:small", data_classes=None)) == 40


def test_a_factory_without_arguments() -> None:
    assert classes(opened(f"{HERE}:fixed_60")) == 60


def test_a_class_is_a_factory() -> None:
    first, again = (opened(f"{HERE}:SmallNet", weights="random") for _ in range(2))
    assert classes(first) == 9
    assert first.weights == "random (seed 4)"
    assert first.digest == again.digest


def test_weights_from_a_file(tmp_path: Path) -> None:
    trained = small(9)
    torch.nn.init.normal_(trained.head.bias)  # type: ignore[arg-type, union-attr]
    torch.save(trained.state_dict(), tmp_path / "a.pt")
    teacher = opened(f"{HERE}:small", weights=str(tmp_path / "a.pt"))
    assert teacher.weights == "a.pt"
    pixels = torch.rand(2, 3, 24, 24)
    assert torch.equal(teacher.model(pixels), trained.eval()(pixels))


def test_class_names_in_the_file_decide_the_head(tmp_path: Path) -> None:
    metadata = {"kdcache": '{"class_names": ["a", "b", "c"], "input_size": 20}'}
    save_file(small(3).state_dict(), tmp_path / "a.safetensors", metadata=metadata)
    teacher = opened(f"{HERE}:small", weights=str(tmp_path / "a.safetensors"))
    assert classes(teacher) == 3
    assert teacher.class_names == ("a", "b", "c")
    assert teacher.preprocessing.input_size == 20


def test_found_beside_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_models.py").write_text(
        "from torch import nn\ndef teacher():\n    return nn.Flatten()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    assert opened("my_own_models:teacher").spec == "my_own_models:teacher"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.module:f", "No module named 'no'"),
        (f"{HERE}:nothing", "no attribute 'nothing'"),
        (f"{HERE}:", "expected package.module:Name"),
        (":f", "expected package.module:Name"),
        (".relative:f", "expected package.module:Name"),
        (f"{HERE}:not_callable", "not_callable' is not callable"),
        (f"{HERE}:not_a_module", "returned str, expected a torch.nn.Module"),
        (f"{HERE}:broken", r"RuntimeError: no checkpoint for 9 classes \(.*models\.py, line \d+\)"),
        (f"{HERE}:write_nothing", "no attribute"),
    ],
)
def test_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(name)


def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("def teacher(:\n")
    (tmp_path / "fails_at_import.py").write_text("x = 1\ny = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="importing half_written failed: SyntaxError"):
        opened("half_written:teacher")
    with pytest.raises(ConfigError, match=r"ZeroDivisionError.*fails_at_import\.py, line 2"):
        opened("fails_at_import:teacher")
