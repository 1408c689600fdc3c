"""``kdtrain compare`` on digits: real runs in real processes, stopped and refused."""

from __future__ import annotations

import csv
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests.trainer.comparison.test_report import plan
from tests.trainer.runs import SAMPLES, assert_same_weights, config, write_digits_cache
from trainer.cli.app import app
from trainer.comparison.methods import parse_methods
from trainer.comparison.plan import Job
from trainer.comparison.report import csv_text
from trainer.comparison.runs import Share, flag, run_words, share_machine
from trainer.comparison.standings import read_run, standings
from trainer.run.loop import train

ROOT = Path(__file__).parents[3]
EPOCHS = 30
DIVERGES = "ce*1e38"
SETTINGS = {
    "val_data": "digits:test", "student": "cnn3(width=2)", "epochs": EPOCHS, "batch_size": 32,
    "optimizer": "sgd", "lr": 0.2, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def words(cache, out, losses, *more):
    given = {
        "data": "digits:train",
        "limit": SAMPLES,
        **SETTINGS,
        "cache": cache,
        "losses": losses,
        "seeds": 2,
    }
    pairs = {**given, "out": out}.items()
    return ["compare", *(word for key, value in pairs for word in (flag(key), str(value))), *map(str, more)]


def compare(cache, out, losses="kd", *more):
    return CliRunner().invoke(app, words(cache, out, losses, *more))


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def lines(out):
    return {line["method"]: line for line in csv.DictReader((out / "compare.csv").read_text().splitlines())}


def test_methods_are_compared_and_one_that_fails_leaves_the_others(cache, tmp_path):
    out = tmp_path / "a"
    done = compare(cache, out, f"kd,{DIVERGES}", "--seeds", 1)
    table_says_what_the_runs_reached(out)
    failure_is_told(out, done)
    assert f"table {out}/compare.md, picture {out}/compare.png" in done.stdout
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_folder_that_is_no_run_any_more_is_never_removed(cache, tmp_path):
    compare(cache, tmp_path / "a", "kd", "--seeds", 1)
    run = tmp_path / "a" / "runs" / "kd" / "seed-0"
    (run / "config.json").unlink()
    (run / "report.md").unlink()
    held = {path.name for path in run.iterdir()}
    done = compare(cache, tmp_path / "a", "kd", "--seeds", 1)
    assert {path.name for path in run.iterdir()} == held
    assert "is not empty and holds no run" in done.output + (tmp_path / "a" / "compare.md").read_text()


def table_says_what_the_runs_reached(out):
    table = lines(out)
    reached = {}
    for name in ("ce", "kd"):
        reached[name] = 100 * metrics(out / "runs" / name / "seed-0")[EPOCHS - 1]["val_top1"]
        # 160 digits suffice to learn something from either.
        assert reached[name] > 20
        assert float(table[name]["top1_percent"]) == pytest.approx(reached[name], abs=1e-4)
    gain = reached["kd"] - reached["ce"]
    assert float(table["kd"]["difference_points"]) == pytest.approx(gain, abs=1e-4)
    assert table["kd"]["minimises"] == "ce*0.1 + kd(temperature=4)*0.9"


def failure_is_told(out, done):
    assert done.exit_code == 1
    assert "error: 1 of 3 runs failed" in done.stderr
    failed = lines(out)[DIVERGES]
    assert (failed["finished_runs"], failed["top1_percent"]) == ("0", "")
    log = out / "logs" / "ce-1e38-seed-0.log"
    assert failed["failed"].startswith("seed 0 failed: loss 'ce': student logits are not finite")
    assert failed["failed"].endswith(f"(log: {log})")
    assert failed["failed"] in done.stdout
    assert failed["failed"] in (out / "compare.md").read_text()
    command = next(line for line in log.read_text().splitlines() if line.startswith("$ kdtrain "))
    assert f" --out {out}/runs/ce-1e38/seed-0" in command
    # And each run as it ends.
    assert "3 runs; " in done.stdout
    assert "hard labels, seed 0: held out " in done.stdout
    assert f"{DIVERGES}, seed 0: FAILED: loss 'ce': student logits are not finite" in done.stdout
    assert "[3/3]" in done.stdout


def runs_are_alike_but_for_objective_and_seed(out):
    own = {"loss", "seed", "out"}
    configs = []
    for name in ("ce", "kd"):
        for seed in (0, 1):
            run = json.loads((out / "runs" / name / f"seed-{seed}" / "config.json").read_text())
            assert (run["settings"]["loss"], run["settings"]["seed"]) == (name, seed)
            configs.append((run["caches"], {k: v for k, v in run["settings"].items() if k not in own}))
    assert configs == configs[:1] * 4


def start(cache, out):
    command = [sys.executable, "-m", "kdcache", "train", *words(cache, out, "kd")]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for_an_epoch(out, parent):
    while not list(out.glob("runs/*/*/metrics.jsonl")):
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_to_the_same_results(cache, tmp_path):
    out = tmp_path / "b"
    parent = start(cache, out)
    wait_for_an_epoch(out, parent)
    children = psutil.Process(parent.pid).children(recursive=True)
    # The whole group, as a terminal does: runs are to hear of it from their parent, once.
    os.killpg(parent.pid, signal.SIGTERM)
    said, errors = parent.communicate(timeout=60)
    assert parent.returncode == 143
    assert "Traceback" not in errors
    assert "of 4 runs finished; the same command goes on from there" in errors
    assert children
    assert not any(child.is_running() for child in children)
    # In the middle of a run, not between two of them.
    assert "write their checkpoints and end" in said
    assert "error: stopped after step" in "".join(log.read_text() for log in (out / "logs").iterdir())
    assert any(not (run / "report.md").exists() for run in out.glob("runs/*/*"))

    done = compare(cache, out)
    assert done.exit_code == 0, done.output
    assert "[4/4]" in done.stdout
    runs_are_alike_but_for_objective_and_seed(out)
    same_as_uninterrupted(cache, out, tmp_path)
    logs = [log.read_text() for log in (out / "logs").iterdir()]
    again = compare(cache, out)
    assert again.exit_code == 0
    assert "all 4 runs are finished" in again.stdout
    assert logs == [log.read_text() for log in (out / "logs").iterdir()]


def same_as_uninterrupted(cache, out, tmp_path):
    """Weights and metrics of each run, and the table."""
    results = []
    for method in parse_methods("kd", "cifar100"):
        for seed in (0, 1):
            own, name = tmp_path / f"{method.name}-{seed}", f"{method.name}/seed-{seed}"
            train(config(own, cache, loss=method.name, seed=seed, **SETTINGS))
            assert_same_weights(out / "runs" / name, own)
            for row, other in zip(metrics(out / "runs" / name), metrics(own), strict=True):
                assert without(row, "epoch_s", "samples_per_s") == without(other, "epoch_s", "samples_per_s")
            results.append(read_run(method, seed, own, None, own))
    expected = csv.DictReader(csv_text(standings(parse_methods("kd", "cifar100"), results)).splitlines())
    assert [without(line, "epoch_s") for line in lines(out).values()] == [
        without(line, "epoch_s") for line in expected
    ]


def without(row, *names):
    return {key: value for key, value in row.items() if key not in names}


def test_a_bad_item_is_refused_before_anything_runs(cache, tmp_path):
    done = compare(cache, tmp_path / "c", "kd, dkd(bta=2), pld")
    assert done.exit_code == 2
    assert "loss 'dkd': unknown parameter 'bta': did you mean 'beta'" in done.stderr
    assert "\n  kd, dkd(bta=2), pld\n      ^^^^^^^^^^\n" in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--student", "resnet19"], 2, "unknown student 'resnet19'"),
        (["--cache", "no.zarr"], 1, "there is no cache here"),
        (["--val-data", "imagefolder:no"], 1, "does not exist"),
        (["--device", "cuda:99"], 2, "device 'cuda:99'"),
        (["--optimizer", "lion"], 2, "--optimizer lion"),
        (["--limit", "161"], 1, "add --limit 160"),
        (["--out", "taken"], 2, "taken is not empty and holds no comparison"),
        (["--out", "taken/file"], 2, "taken/file is a file"),
        (["--seeds", "0"], 2, "--seeds"),
    ],
)
def test_what_no_run_could_have_is_refused_at_once(cache, tmp_path, monkeypatch, more, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    done = compare(cache, "d", "kd", *more)
    assert done.exit_code == code
    assert message in done.stderr
    assert not (tmp_path / "d").exists()


def test_held_out_data_is_required(cache, tmp_path):
    given = words(cache, tmp_path / "e", "kd")
    place = given.index("--val-data")
    done = CliRunner().invoke(app, given[:place] + given[place + 2 :])
    assert done.exit_code == 2
    assert "--val-data" in done.stderr


def test_two_commands_do_not_share_a_folder(cache, tmp_path):
    (tmp_path / "f").mkdir()
    with (tmp_path / "f" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = compare(cache, tmp_path / "f")
    assert done.exit_code == 2
    assert "another kdtrain compare works in" in done.stderr
    assert not (tmp_path / "f" / "runs").exists()


def test_help_teaches_with_examples():
    shown = " ".join(CliRunner().invoke(app, ["compare", "--help"]).stdout.split())
    assert "kdtrain compare --cache http://host:8000/v1/caches/r50" in shown
    assert "commas in brackets do not separate methods" in shown


@pytest.mark.parametrize(
    ("cores", "jobs", "device", "seeds", "expected"),
    [
        (8, None, "cpu", 3, Share(jobs=6, threads=1, workers=0)),
        (4, None, "cpu", 3, Share(jobs=4, threads=1, workers=0)),
        (8, 2, "cpu", 3, Share(jobs=2, threads=4, workers=0)),
        (2, 5, "cpu", 3, Share(jobs=5, threads=1, workers=0)),
        (1, None, "cpu", 1, Share(jobs=1, threads=1, workers=0)),
        (8, None, "cuda", 3, Share(jobs=1, threads=8, workers=7)),
        (8, 4, "cuda", 3, Share(jobs=4, threads=2, workers=1)),
    ],
)
def test_the_machine_is_shared_by_cores(tmp_path, monkeypatch, cores, jobs, device, seeds, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(cores))
    compared = plan(tmp_path, "kd", seeds=seeds, device=device, image_size=8)
    assert share_machine(compared, jobs) == expected
    given = plan(tmp_path, "kd", seeds=seeds, device=device, image_size=8, workers=3)
    assert share_machine(given, jobs).workers == 3


def test_a_run_is_told_what_was_asked_for(tmp_path):
    settings = config(tmp_path, "http://h/v1/caches/c", val_data="digits:test", weight_decay=None, lr=0.003,
                      allow_render_drift=True, loss="ce", seed=9)  # fmt: skip
    method = plan(tmp_path, "kd").methods[1]
    told = run_words(settings, Job(method, 1, tmp_path), workers=0)
    pairs = dict(itertools.pairwise(told))
    assert (pairs["--loss"], pairs["--seed"], pairs["--workers"]) == ("kd", "1", "0")
    assert pairs["--out"] == str(tmp_path / "runs" / "kd" / "seed-1")
    assert (pairs["--lr"], pairs["--val-data"], pairs["--batch-size"]) == ("0.003", "digits:test", "32")
    assert told.count("--allow-render-drift") == 1
    assert "--weight-decay" not in told
    assert "--resume" in told
