from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from cache_builder.build.forward import CompilerError, TeacherForward
from cache_builder.format.errors import ConfigError
from cache_builder.teachers import TeacherRequest, open_teacher
from cache_builder.tensors.normalise import normalise
from tests.cache_builder.models import small

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_models_of_normalised_pixels() -> None:
    model = small().eval()
    forward = TeacherForward(model, MEAN, STD, CPU, "fp32")
    torch.testing.assert_close(forward.logits(IMAGES), model(normalise(IMAGES, MEAN, STD)))
    assert forward.classes(16) == 40


def test_a_row_does_not_depend_on_its_batch() -> None:
    forward = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32")
    torch.testing.assert_close(forward.logits(IMAGES[2:3]), forward.logits(IMAGES)[2:3])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision(precision: str, dtype: torch.dtype) -> None:
    forward = TeacherForward(small().eval(), MEAN, STD, CPU, precision)  # type: ignore[arg-type]
    logits = forward.logits(IMAGES)
    assert logits.dtype == dtype
    exact = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32").logits(IMAGES)
    assert (logits.float() - exact).abs().max() < 0.1 * exact.std()


class TestCompile:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        """Nothing translated before, by a test or a run of them."""
        torch.compiler.reset()
        counters.clear()
        yield
        torch.compiler.reset()

    def test_every_batch_has_one_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With dynamo's own backend, which needs no compiler: smaller batches need no second translation."""
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
        forward, plain = (TeacherForward(small().eval(), MEAN, STD, CPU, "fp32") for _ in range(2))
        forward.compile(5, 16)
        for images in (IMAGES[:5], IMAGES[:2], IMAGES[3:4]):
            logits = forward.logits(images)
            assert logits.shape == (len(images), 40)
            torch.testing.assert_close(logits, plain.logits(images), rtol=1e-4, atol=1e-4)
        assert counters["stats"]["unique_graphs"] == 1

    def test_a_teacher_that_cannot_be_traced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(graph: object, inputs: object) -> object:
            raise RuntimeError("no such device\nand much more")

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=refuse))
        forward = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32")
        with pytest.raises(CompilerError, match="no such device"):
            forward.compile(4, 16)
        assert forward.logits(IMAGES).shape == (6, 40)

    def test_memory_that_runs_out_is_not_the_compilers_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def exhausted(pixels: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch, "compile", lambda model: exhausted)
        with pytest.raises(torch.OutOfMemoryError):
            TeacherForward(small().eval(), MEAN, STD, CPU, "fp32").compile(4, 16)

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: no g++ here")
    def test_for_real(self) -> None:
        forward, plain = (TeacherForward(small().eval(), MEAN, STD, CPU, "fp32") for _ in range(2))
        forward.compile(5, 16)
        for images in (IMAGES[:5], IMAGES[:2]):
            torch.testing.assert_close(forward.logits(images), plain.logits(images), rtol=1e-4, atol=1e-4)
        assert counters["stats"]["unique_graphs"] == 1

    @pytest.mark.slow
    def test_without_a_compiler(self, tmp_path: Path) -> None:
        """A fresh process: inductor looks for the compiler once."""
        program = (
            "import torch\nfrom cache_builder.build.forward import CompilerError, TeacherForward\n"
            "from tests.cache_builder.models import small\n"
            "forward = TeacherForward(small().eval(), (0.5,) * 3, (0.5,) * 3, torch.device('cpu'), 'fp32')\n"
            "try:\n    forward.compile(4, 16)\nexcept CompilerError as error:\n    print(error)\n"
        )
        changed = os.environ | {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=changed, check=True
        )
        assert "InvalidCxxCompiler: No working C++ compiler found" in ran.stdout


class TestOutputs:
    def test_declared_widths_need_no_picture(self) -> None:
        def never(pixels: torch.Tensor) -> torch.Tensor:
            raise AssertionError("nobody has to look")

        model = small().eval()
        model.forward = never  # type: ignore[method-assign, assignment]
        assert TeacherForward(model, MEAN, STD, CPU, "fp32", {"logits": 40}).classes(16) == 40

    def test_outputs_have_names(self) -> None:
        forward = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32", {"logits": 40})
        assert {name: output.shape for name, output in forward(IMAGES).items()} == {"logits": (6, 40)}

    def test_another_width_than_declared(self) -> None:
        forward = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32", {"logits": 41})
        with pytest.raises(ConfigError, match="gives 40 logits for a picture, and declares 41"):
            forward(IMAGES)

    @pytest.mark.parametrize("name", ["resnet18", "timm:resnet10t"])
    def test_of_libraries_are_declared(self, name: str) -> None:
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        teacher = open_teacher(name, TeacherRequest(weights="random", data_classes=7))
        assert teacher.outputs == {"logits": 7}
        seen = teacher.preprocessing
        forward = TeacherForward(teacher.model, seen.mean, seen.std, CPU, "fp32", teacher.outputs)
        assert forward(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))["logits"].shape == (1, 7)
