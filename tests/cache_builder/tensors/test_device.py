from __future__ import annotations

import pytest
import torch

from cache_builder.format.errors import ConfigError
from cache_builder.tensors.device import resolve_device, resolve_precision

CPU = torch.device("cpu")


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
