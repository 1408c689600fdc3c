"""Two processes train what one does, and a run stopped among them goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import config, weights, write_digits_cache
from trainer.loop import train

ROOT = Path(__file__).parents[2]


def torchrun(out, cache, *more):
    flags = {
        "--data": "digits:train", "--val-data": "digits:test", "--limit": "160", "--cache": str(cache),
        "--student": "tests.trainer.runs:without_state", "--loss": "ce*0.5 + kd*0.5", "--epochs": "3",
        "--batch-size": "32", "--optimizer": "sgd", "--lr": "0.05", "--device": "cpu", "--out": str(out),
    }  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [word for pair in flags.items() for word in pair]
    return [*launcher, "-m", "trainer", *words, "--no-tensorboard", *more]


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    done = subprocess.run(
        torchrun(tmp_path / "two", cache), cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 3/3") == 1
    settings = config(
        tmp_path / "one", cache, student="tests.trainer.runs:without_state", optimizer="sgd", lr=0.05,
        val_data="digits:test",
    )  # fmt: skip
    alone = train(settings)
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)
    assert f"held out: {alone.last.top1:.2%}" in done.stdout
