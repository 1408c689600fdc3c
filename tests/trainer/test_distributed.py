"""Several processes train what one does, and a run that some of them began goes on by others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import config, weights, write_digits_cache
from tests.trainer.same_runs import differing, metrics
from trainer.run.checkpoint import Checkpoints
from trainer.run.loop import train

ROOT = Path(__file__).parents[2]
ALIKE = {
    "student": "tests.trainer.runs:without_state", "optimizer": "sgd", "lr": 0.05, "val_data": "digits:test",
}  # fmt: skip
"""Settings with which no number depends on how batches are divided, but for rounding."""


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
    assert done.stdout.count(f"held out: {alone.last.top1:.2%}") == 1


@pytest.mark.slow
def test_unequal_numbers_of_labelled_samples_count_as_in_one_process(tmp_path):
    """A mean over labelled samples alone is one over those of all processes and micro-batches."""
    cache = write_digits_cache(tmp_path / "digits.zarr")
    loss = "ce(samples=labelled)*0.5 + kd*0.5"
    done = subprocess.run(
        torchrun(tmp_path / "two", cache, "--labelled", "0.2", "--accumulation", "2", loss=loss),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = config(
        tmp_path / "one", cache, student="tests.trainer.runs:without_state", optimizer="sgd", lr=0.05,
        labelled=0.2, loss=loss,
    )  # fmt: skip
    train(settings)
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, weights(tmp_path / "one")[name], rtol=1e-4, atol=1e-6)


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


@pytest.mark.slow
def test_accelerate_launch_trains_as_well(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    words = torchrun(tmp_path / "two", cache)
    # Not --cpu, with which accelerate starts one process whatever --num_processes says.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launcher, "--num_machines", "1", "--mixed_precision", "no", *words[words.index("kdcache") - 1 :]],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    assert done.stdout.count("epoch 3/3") == 1
    assert "find_unused_parameters" not in done.stderr


def a_run(out, cache, processes, stop_after=None, **settings):
    """One line of what ``tests.trainer.ranks`` does."""
    outs = [str(out)] * processes
    return {"outs": outs, "cache": str(cache), "stop_after": stop_after, "settings": ALIKE | settings}


def ran(folder, runs):
    """The exit codes of the processes of each run, and what every process said."""
    spec = folder / "spec.json"
    spec.write_text(json.dumps(runs))
    command = [sys.executable, "-m", "tests.trainer.ranks", str(spec)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [path.read_text() for path in sorted(folder.glob("spec.json.log.*"))]


STOPPED = 143


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Weights and metrics are those of one process to 1e-6; 3e-8 to 6e-8 was found."""
    cache = write_digits_cache(tmp_path / "digits.zarr")
    changes = [(2, 1), (2, 4), (1, 2), (4, 2)]
    runs = [a_run(tmp_path / "one", cache, 1)]
    for before, after in changes:
        out = tmp_path / f"{before}-{after}"
        runs += [a_run(out, cache, before, stop_after=7), a_run(out, cache, after)]
    codes, _ = ran(tmp_path, runs)
    assert [set(each) <= {STOPPED, 130} for each in codes[1::2]] == [True] * len(changes)
    assert not any(map(any, codes[::2]))
    for before, after in changes:
        run = tmp_path / f"{before}-{after}"
        for name, value in weights(run).items():
            torch.testing.assert_close(value, weights(tmp_path / "one")[name], rtol=0, atol=1e-6)
        for ours, theirs in zip(metrics(run), metrics(tmp_path / "one"), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_that_go_on_are_those_that_were_stopped(tmp_path, processes):
    """Dropout, running statistics and the order in which gradients are summed: bit for bit."""
    cache = write_digits_cache(tmp_path / "digits.zarr")
    settings = {"student": "tests.trainer.runs:with_dropout", "optimizer": "adamw", "lr": 2e-2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runs = [
        a_run(whole, cache, processes, **settings),
        a_run(parts, cache, processes, stop_after=7, **settings),
        a_run(parts, cache, processes, **settings),
    ]
    codes, _ = ran(tmp_path, runs)
    assert [any(each) for each in codes] == [False, True, False]
    assert differing(whole, parts) == []


@pytest.mark.slow
def test_what_cannot_be_divided_otherwise_is_refused_by_name(tmp_path):
    """Samples are compared within a micro-batch, of whichever process."""
    cache = write_digits_cache(tmp_path / "digits.zarr")
    out = tmp_path / "run"
    runs = [
        a_run(out, cache, 2, stop_after=7, loss="dist"),
        a_run(out, cache, 1, loss="dist"),
        a_run(out, cache, 1, loss="dist", accumulation=2),
        a_run(tmp_path / "whole", cache, 2, loss="dist"),
    ]
    codes, logs = ran(tmp_path, runs)
    assert codes[1:] == [[2], [0], [0, 0]]
    assert "loss 'dist' compares the samples of a micro-batch" in logs[0]
    assert "--accumulation whose product is 2" in logs[0]
    for name, value in weights(out).items():
        torch.testing.assert_close(value, weights(tmp_path / "whole")[name], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_folder_that_not_every_process_sees_is_told(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    ran(tmp_path, [a_run(out, cache, 2, stop_after=7)])
    shutil.copytree(out, elsewhere)
    shutil.rmtree(elsewhere / "checkpoints")
    codes, logs = ran(tmp_path, [a_run(out, cache, 2) | {"outs": [str(out), str(elsewhere)]}])
    assert codes == [[1, 1]]
    for log in logs:
        assert "process 1 of 2 does not read the checkpoint" in log
        assert "--out must be one folder that every process sees" in log
        assert "Traceback" not in log


@pytest.mark.slow
def test_a_student_with_an_unused_parameter_trains_as_in_one_process(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    settings = {"student": "tests.trainer.runs:with_unused"}
    runs = [a_run(tmp_path / str(count), cache, count, **settings) for count in (1, 2)]
    codes, logs = ran(tmp_path, runs)
    assert not any(map(any, codes)), logs
    for name, value in weights(tmp_path / "2").items():
        torch.testing.assert_close(value, weights(tmp_path / "1")[name], rtol=0, atol=1e-6)
