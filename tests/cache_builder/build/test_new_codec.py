"""A codec is added by its class, its torch twin, its calibrator and a line in each dict: all else follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import ALONE, Calibration, Calibrator, Scope
from cache_builder.format import CODECS, Cache, ConfigError, Ranked, open_cache
from cache_builder.format.codecs import CodecSettings, Fields, Stored
from cache_builder.format.codecs.contract import Header
from cache_builder.format.codecs.fields import log_sum_exp, stored_first
from cache_builder.format.codecs.record import Column
from cache_builder.format.manifest import CalibrationSection, CodecRequest
from cache_builder.tensors.decode import DECODERS, RecordDecoder
from cache_builder.tensors.encode import ENCODERS
from logit_server.run import serving
from logit_server.settings import Settings
from tests.cache_builder.conftest import Build
from trainer import TeacherCache
from trainer.run.loop import train
from trainer.run.settings import TrainSettings


class HalfSettings(CodecSettings):
    """Every logit in float16, its distance from a constant of the class."""

    name: Literal["half"] = "half"
    classes: int

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("half", "<f2", self.classes),)

    def headers(self, width: int) -> tuple[Header, ...]:
        return (Header("offset", "<f4", (width,)),)

    def kept(self, width: int) -> int:
        return width

    def described(self, width: int) -> str:
        return "every class in half precision"


class Half(Ranked[HalfSettings]):
    Settings: ClassVar[type[CodecSettings]] = HalfSettings

    def _encode(self, values: NDArray[np.float32]) -> Fields:
        return {"half": (values - self.arrays["offset"]).astype("<f2")}

    def decode(self, fields: Fields) -> NDArray[np.float32]:
        dense: NDArray[np.float32] = fields["half"].astype(np.float32) + self.arrays["offset"]
        return dense

    def stored(self, fields: Fields) -> Stored:
        dense = self.decode(fields)
        index = stored_first(dense, self.width)
        return Stored(index, np.take_along_axis(dense, index, axis=1), log_sum_exp(dense).astype(np.float32))

    def usable(self, fields: Fields) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(fields["half"]).all(axis=1))

    def _invalidate(self, columns: NDArray[Any]) -> None:
        columns["half"] = np.nan


class HalfEncoder(nn.Module):
    def __init__(self, codec: Half) -> None:
        super().__init__()
        self.register_buffer("offset", torch.from_numpy(codec.arrays["offset"]))

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        return {"half": (logits - self.offset).to(torch.float16).contiguous().view(torch.uint8)}


class HalfDecoder(nn.Module):
    def __init__(self, codec: Half) -> None:
        super().__init__()
        self.register_buffer("offset", torch.from_numpy(codec.arrays["offset"]), persistent=False)

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        return fields["half"].float() + self.offset


class HalfCalibrator(Calibrator):
    def provisional(self, classes: int, request: CodecRequest) -> CodecSettings:
        return HalfSettings(classes=classes)

    def fit(self, logits: NDArray[np.float32], request: CodecRequest, scope: Scope = ALONE) -> Calibration:
        codec = Half(HalfSettings(classes=logits.shape[1]), logits.shape[1], {"offset": logits.mean(axis=0)})
        lost = float(np.sqrt(np.square(codec.decode(codec.encode(logits)) - logits).mean()))
        section = CalibrationSection(pairs=len(logits), logit_std=float(logits.std()), tail_error=lost)
        return Calibration(codec, section)


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "half", Half)
    monkeypatch.setitem(ENCODERS, "half", HalfEncoder)
    monkeypatch.setitem(DECODERS, "half", HalfDecoder)
    monkeypatch.setitem(calibrate.CALIBRATORS, "half", HalfCalibrator())


@pytest.fixture
def built(run_build: Build, tmp_path: Path) -> Cache:
    run_build(tmp_path / "half.zarr", codec="half", tail_rank=None, views=2)
    return open_cache(tmp_path / "half.zarr")


def test_it_builds_serves_and_trains(built: Cache, photos: Path, tmp_path: Path) -> None:
    assert built.manifest.codec == HalfSettings(classes=40)
    assert [spec for spec in built.manifest.digests if spec.startswith("codec/")] == ["codec/logits/offset"]
    with (
        serving(Settings(caches=(built.location,), port=0)) as base,
        TeacherCache.open(f"{base}/v1/caches/half") as cache,
    ):
        records = cache.fetch(1, np.arange(80))
        np.testing.assert_array_equal(records, built.read_page(1))
        decoded = RecordDecoder(cache.codec)(torch.from_numpy(records)).numpy()
        np.testing.assert_allclose(decoded, built.decode(records), atol=1e-5)
        config = {
            "cache": (cache.location,), "data": f"imagefolder:{photos}", "student": "cnn3(width=2)",
            "loss": "kd", "epochs": 1, "batch_size": 32, "device": "cpu", "workers": 0, "tensorboard": False,
            "out": tmp_path / "run",
        }  # fmt: skip
        train(TrainSettings.model_validate(config))
    epochs = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [np.isfinite(json.loads(epoch)["train_kd"]) for epoch in epochs] == [True]


def test_it_continues_only_as_itself(built: Cache, run_build: Build) -> None:
    assert run_build(Path(built.location), tail_rank=None, views=2).was_finished
    with pytest.raises(ConfigError, match="has records of codec half, and --codec class-sketch asks for"):
        run_build(Path(built.location), codec="class-sketch", tail_rank=None, views=2)
