"""A run that was stopped, killed or cut off from its server ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.train_kills import campaign
from cache_builder.format import DataError, ServerError
from tests.trainer.runs import STEPS_PER_EPOCH, assert_same_weights, config, write_digits_cache
from tests.trainer.servers import free_port, server
from trainer.run.loop import train
from trainer.run.progress import Silent

ROOT = Path(__file__).parents[2]


class AtStep(Silent):
    """Does something once, when a number of steps is done."""

    def __init__(self, step, action):
        self._step, self._action = step, action

    def stepped(self, step):
        if step == self._step:
            self._action()


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("runs") / "a"
    return out, train(config(out, cache, val_data="digits:test"))


def metrics(out):
    """All rows without what a clock says."""
    import json

    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("epoch_s", "samples_per_s")} for line in lines
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 3, 3 * STEPS_PER_EPOCH - 1])
def test_a_stopped_run_resumes_to_the_same_weights_and_metrics(uninterrupted, cache, tmp_path, number, step):
    settings = config(tmp_path / "b", cache, val_data="digits:test")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of {3 * STEPS_PER_EPOCH}"):
        train(settings, display=AtStep(step, send(number)))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    result = train(settings, resume=True)
    assert_same_weights(tmp_path / "b", uninterrupted[0])
    assert metrics(tmp_path / "b") == metrics(uninterrupted[0])
    assert result.best_top1 == uninterrupted[1].best_top1


def test_it_may_be_stopped_again_and_again(uninterrupted, cache, tmp_path):
    settings = config(tmp_path / "b", cache, val_data="digits:test")
    for step in (1, 3, STEPS_PER_EPOCH + 1):
        with pytest.raises(KeyboardInterrupt):
            train(settings, resume=step > 1, display=AtStep(step, send(signal.SIGINT)))
    train(settings, resume=True)
    assert_same_weights(tmp_path / "b", uninterrupted[0])
    assert metrics(tmp_path / "b") == metrics(uninterrupted[0])


def test_the_cache_may_lie_elsewhere_when_it_goes_on(uninterrupted, cache, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "b", cache, val_data="digits:test"), display=AtStep(7, send(signal.SIGINT)))
    with server(cache) as url:
        train(config(tmp_path / "b", url, val_data="digits:test", workers=1), resume=True)
    assert_same_weights(tmp_path / "b", uninterrupted[0])


def command(out, cache, *more):
    """The command of ``config``, to be run as a process."""
    flags = {
        "--data": "digits:train", "--val-data": "digits:test", "--limit": "160", "--cache": str(cache),
        "--student": "tests.trainer.runs:with_dropout", "--loss": "ce*0.5 + kd*0.5", "--epochs": "3",
        "--batch-size": "32", "--optimizer": "adamw", "--lr": "2e-2", "--device": "cpu", "--out": str(out),
    }  # fmt: skip
    words = [word for pair in flags.items() for word in pair]
    return [sys.executable, "-m", "kdcache", "train", *words, "--no-tensorboard", *more]


def start(out, cache, *more):
    return subprocess.Popen(
        command(out, cache, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_rows(out, process, count):
    path = out / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def test_a_killed_run_resumes_to_the_same_weights(uninterrupted, cache, tmp_path):
    process = start(tmp_path / "b", cache)
    wait_for_rows(tmp_path / "b", process, 1)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = subprocess.run(
        command(tmp_path / "b", cache, "--resume"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert_same_weights(tmp_path / "b", uninterrupted[0])
    assert metrics(tmp_path / "b") == metrics(uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_at_many_instants_ends_the_same(cache, tmp_path, processes):
    found = campaign(tmp_path / "runs", cache, processes, kills=4)
    assert found["at_steps"] == 2
    assert found["in_writing"] + found["after_writing"] == 2
    assert found["sentences"] == 4 * (processes - 1)
    assert found["differing"] == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_exit_codes_of_a_stopped_command(cache, tmp_path, number, code):
    process = start(tmp_path / "b", cache, "--epochs", "2000")
    wait_for_rows(tmp_path / "b", process, 1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume goes on from there" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "b" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("away_s", [2.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_server_that_restarts_does_not_end_the_run(cache, tmp_path, caplog, away_s):
    port = free_port()
    with ExitStack() as first, ExitStack() as second:
        url = first.enter_context(server(cache, port))

        def restart():
            first.close()
            timer = threading.Timer(away_s, lambda: second.enter_context(server(cache, port)))
            timer.start()
            second.callback(timer.join)

        # Sixteen batches are fetched ahead, so the run must be longer to notice.
        train(config(tmp_path / "b", url, fetch="batch", epochs=10), display=AtStep(1, restart))
    assert "trying again" in caplog.text
    assert "answers again" in caplog.text
    train(config(tmp_path / "c", cache, epochs=10))
    assert_same_weights(tmp_path / "b", tmp_path / "c")


def test_a_cache_swapped_under_its_url_stops_the_run(cache, tmp_path):
    other = write_digits_cache(tmp_path / "other.zarr", seed=1)
    port = free_port()
    with ExitStack() as first, ExitStack() as second:
        url = first.enter_context(server(cache, port))

        def swap():
            first.close()
            second.enter_context(server(other, port))

        settings = config(tmp_path / "b", url, fetch="batch", epochs=10)
        with pytest.raises(ServerError, match="the cache was replaced"):
            train(settings, display=AtStep(STEPS_PER_EPOCH, swap))
    assert list((tmp_path / "b" / "checkpoints").glob("step-*"))


def test_waiting_for_a_server_can_be_interrupted(cache, tmp_path):
    port = free_port()
    with ExitStack() as stack:
        url = stack.enter_context(server(cache, port))

        def leave():
            stack.close()
            threading.Timer(3.0, send(signal.SIGINT)).start()

        settings = config(tmp_path / "b", url, fetch="batch", epochs=10)
        with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
            train(settings, display=AtStep(STEPS_PER_EPOCH, leave))
    train(config(tmp_path / "c", cache, epochs=10))
    train(config(tmp_path / "b", cache, epochs=10), resume=True)
    assert_same_weights(tmp_path / "b", tmp_path / "c")


def test_a_damaged_checkpoint_is_named(cache, tmp_path):
    settings = config(tmp_path / "b", cache)
    with pytest.raises(KeyboardInterrupt):
        train(settings, display=AtStep(2, send(signal.SIGINT)))
    state = next((tmp_path / "b" / "checkpoints").glob("step-*/state.pt"))
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match=r"every checkpoint .* is damaged \(step-00000002\)"):
        train(settings, resume=True)


def test_a_checkpoint_is_written_inside_an_epoch(cache, tmp_path):
    seen = []

    def look():
        seen.extend(path.name for path in (tmp_path / "b" / "checkpoints").glob("step-*"))

    train(config(tmp_path / "b", cache, checkpoint_minutes=1e-9), display=AtStep(4, look))
    assert sorted(seen) == ["step-00000001", "step-00000002", "step-00000003"]


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt"])
def test_a_rotten_checkpoint_costs_steps_and_no_bits(uninterrupted, cache, tmp_path, caplog, file):
    settings = config(tmp_path / "b", cache, val_data="digits:test")
    with pytest.raises(KeyboardInterrupt):
        train(settings, display=AtStep(2 * STEPS_PER_EPOCH + 1, send(signal.SIGINT)))
    newest = max((tmp_path / "b/checkpoints").glob("step-*")) / file
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    train(settings, resume=True)
    assert "damaged" in caplog.text
    assert_same_weights(uninterrupted[0], tmp_path / "b")
    assert metrics(tmp_path / "b") == metrics(uninterrupted[0])


def test_a_folder_that_is_trained_in_is_refused_to_a_second_run(cache, tmp_path):
    settings = config(tmp_path / "b", cache)
    refused = []

    def second():
        # Another process: a record lock holds nobody of its own process back.
        words = command(tmp_path / "b", cache, "--resume")
        refused.append(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False))

    train(settings, display=AtStep(1, second))
    assert refused[0].returncode == 2
    assert f"is being trained by process {os.getpid()}" in refused[0].stderr
