"""Two processes train what one does, and a run stopped among them goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import config, weights, write_digits_cache
from trainer.run.checkpoint import Checkpoints
from trainer.run.loop import train

ROOT = Path(__file__).parents[2]


def torchrun(out, cache, *more, loss="ce*0.5 + kd*0.5", epochs=3):
    flags = {
        "--data": "digits:train", "--val-data": "digits:test", "--limit": "160", "--cache": str(cache),
        "--student": "tests.trainer.runs:without_state", "--loss": loss, "--epochs": str(epochs),
        "--batch-size": "32", "--optimizer": "sgd", "--lr": "0.05", "--device": "cpu", "--out": str(out),
    }  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [word for pair in flags.items() for word in pair]
    return [*launcher, "-m", "kdcache", "train", *words, "--no-tensorboard", *more]


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


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ctkd(loss=kd)", "ce + crld*0.2", "taid(step=0.5)"])
def test_what_losses_keep_is_the_same_in_both_processes(tmp_path, loss):
    """Theta meets as gradients do, values meet before a state moves: two processes end where one does."""
    cache = write_digits_cache(tmp_path / "digits.zarr")
    done = subprocess.run(
        torchrun(tmp_path / "two", cache, loss=loss),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    student = "tests.trainer.runs:without_state"
    train(config(tmp_path / "one", cache, student=student, optimizer="sgd", lr=0.05, loss=loss))
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, weights(tmp_path / "one")[name], rtol=1e-4, atol=1e-6)
    ours, theirs = (Checkpoints(tmp_path / run).newest().load_state()["objective"] for run in ("two", "one"))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_loss_that_learns_from_what_is_set_aside_does_so_in_both(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    command = torchrun(tmp_path / "two", cache, loss="tgeo + binary_kl(head=aux)*0.1", epochs=6)
    done = subprocess.run(
        [*command, "--aux-head", "mlp(hidden=9)"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "16 more are set aside for tgeo" in done.stdout
    state = Checkpoints(tmp_path / "two").newest().load_state()["objective"]
    assert state["stateful.0.network.2.weight"].abs().sum() > 0  # it began at zero
