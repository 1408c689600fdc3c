from __future__ import annotations

import pytest
import torch

from cache_builder.format.errors import ConfigError
from cache_builder.forward import TeacherForward, resolve_device, resolve_precision
from cache_builder.views import normalise
from tests.cache_builder.models import small

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_models_of_normalised_pixels() -> None:
    model = small().eval()
    forward = TeacherForward(model, MEAN, STD, CPU, "fp32")
    torch.testing.assert_close(forward(IMAGES), model(normalise(IMAGES, MEAN, STD)))
    assert forward.classes(16) == 40


def test_a_row_does_not_depend_on_its_batch() -> None:
    forward = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32")
    torch.testing.assert_close(forward(IMAGES[2:3]), forward(IMAGES)[2:3])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision(precision: str, dtype: torch.dtype) -> None:
    forward = TeacherForward(small().eval(), MEAN, STD, CPU, precision)  # type: ignore[arg-type]
    logits = forward(IMAGES)
    assert logits.dtype == dtype
    exact = TeacherForward(small().eval(), MEAN, STD, CPU, "fp32")(IMAGES)
    assert (logits.float() - exact).abs().max() < 0.1 * exact.std()


class TestDevice:
    def test_names(self) -> None:
        assert resolve_device("cpu") == CPU
        assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    @pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x", "meta", "CPU?"])
    def test_unknown(self, name: str) -> None:
        with pytest.raises(ConfigError, match="is not one of auto, cpu, cuda, cuda:N"):
            resolve_device(name)

    def test_more_than_there_are(self) -> None:
        with pytest.raises(ConfigError, match=rf"this machine has {torch.cuda.device_count()} CUDA device"):
            resolve_device("cuda:97")


class TestPrecision:
    def test_auto_on_the_cpu(self) -> None:
        assert resolve_precision("auto", CPU) == "fp32"

    def test_unknown(self) -> None:
        with pytest.raises(ConfigError, match="'int8' is not one of auto, fp32, bf16, fp16"):
            resolve_precision("int8", CPU)
