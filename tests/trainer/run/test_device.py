from __future__ import annotations

import os
import re
from pathlib import Path

import accelerate
import pytest
import torch

from cache_builder.format import ConfigError
from trainer.run.device import (
    _ENGINES,
    _take_out_variables,
    default_workers,
    make_accelerator,
    resolve_device,
    resolve_precision,
)


@pytest.mark.parametrize("name", ["tpu", "cpu:1", "cuda:x", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(ConfigError, match=f"device '{name}'"):
        resolve_device(name)


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto") == expected
    assert resolve_precision("auto", "cpu") == "fp32"


def test_wrong_precisions_are_refused():
    with pytest.raises(ConfigError, match="precision 'int8'"):
        resolve_precision("int8", "cpu")
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize(("device", "message"), [("cuda:1", "is one GPU"), ("cuda", r"with \d+ GPU")])
def test_processes_that_would_share_a_gpu_are_refused(monkeypatch, device, message):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "99")
    with pytest.raises(ConfigError, match=message):
        make_accelerator(device, "fp32")


def test_one_process_may_change_its_precision():
    assert make_accelerator("cpu", "bf16").mixed_precision == "bf16"
    assert make_accelerator("cpu", "fp32").mixed_precision == "no"


def test_small_images_on_a_cpu_need_no_workers():
    assert default_workers("cpu", 32) == 0
    assert default_workers("cpu", 224) <= 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor"),
        ("ACCELERATE_GRADIENT_CLIPPING", "0.1"),
    ],
)
def test_variables_of_accelerate_change_nothing_and_are_told(monkeypatch, caplog, name, value):
    monkeypatch.setenv(name, value)
    accelerator = make_accelerator("cpu", "fp32")
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend.value == "NO"
    assert name in caplog.text
    assert name not in os.environ


def variables_of_accelerate():
    folder = Path(accelerate.__file__).parent
    text = "".join(path.read_text() for path in folder.rglob("*.py"))
    return sorted(set(re.findall(r"ACCELERATE_[A-Z0-9_]*[A-Z0-9]", text)))


def numbers(accelerator):
    state = accelerator.state
    return (
        accelerator.gradient_accumulation_steps, accelerator.mixed_precision, state.dynamo_plugin.backend,
        state.distributed_type, accelerator.device, accelerator.num_processes, accelerator.fp8_backend,
    )  # fmt: skip


@pytest.mark.parametrize("name", variables_of_accelerate())
def test_no_variable_that_accelerate_reads_changes_a_run(monkeypatch, name):
    expected = numbers(make_accelerator("cpu", "fp32"))
    for value in ("true", "7"):
        monkeypatch.setenv(name, value)
        if name.removeprefix("ACCELERATE_USE_") in _ENGINES:
            with pytest.raises(ConfigError, match=name):
                make_accelerator("cpu", "fp32")
        else:
            assert numbers(make_accelerator("cpu", "fp32")) == expected


def test_a_launcher_that_asks_for_the_cpu_is_told_where_it_is_not_heeded(caplog, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    _take_out_variables("cuda")
    assert "ACCELERATE_USE_CPU" in caplog.text


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_another_engine_of_accelerate_is_refused_by_name(monkeypatch, engine):
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(ConfigError, match=f"ACCELERATE_USE_{engine}"):
        make_accelerator("cpu", "fp32")


def test_what_accelerate_launch_says_always_is_not_told(monkeypatch, caplog):
    for name, value in (("MIXED_PRECISION", "no"), ("USE_CPU", "true"), ("DYNAMO_BACKEND", "no")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    make_accelerator("cpu", "fp32")
    assert not caplog.text
