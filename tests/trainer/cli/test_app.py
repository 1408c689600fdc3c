"""The command line: what it says, where it says it, and its exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cache_builder.datasets import open_source
from cache_builder.format.manifest import CalibrationSection
from tests.rate_points import rate_point
from tests.trainer.runs import write_digits_cache
from trainer.cli.app import app
from trainer.losses import LOSSES, selftest

TINY = ["--data", "digits:train", "--limit", "160", "--student", "cnn3(width=2)", "--batch-size", "32",
        "--device", "cpu", "--no-tensorboard"]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def kdtrain(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("runs") / "a"
    done = kdtrain(
        *TINY, "--cache", cache, "--val-data", "digits:test", "--loss", "kd", "--epochs", "2", "--out", out
    )
    assert done.exit_code == 0, done.output
    return out, done


def test_a_run_tells_what_it_does_and_where_the_results_are(run):
    out, done = run
    assert "minimise  ce*0.1 + kd(temperature=4)*0.9 (arXiv 1503.02531" in done.stdout
    assert "teacher   synthetic, weights none; cache replay" in done.stdout
    assert "digits:train: 160 samples at 8 px, 2 view(s) by pad-crop-flip" in done.stdout
    assert "epoch 2/2" in done.stdout
    assert f"weights {out}/best.safetensors, report {out}/report.md" in done.stdout


@pytest.mark.parametrize(
    ("loss", "is_warned"), [("kd(temperature=4)*1", True), ("kd(temperature=1)*1", False)]
)
def test_a_loss_that_the_cache_serves_badly_is_named_once(tmp_path, loss, is_warned):
    table = (rate_point(30, 0.2, (0.97, 0.85)), rate_point(60, 0.02, (0.999, 0.99)))
    section = CalibrationSection(pairs=200, logit_std=1, tail_error=0.1, table=table, chosen=0)
    cache = write_digits_cache(tmp_path / "digits.zarr", calibration=section)
    done = kdtrain(*TINY, "--cache", cache, "--loss", loss, "--epochs", "2", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("serves kd badly: kd at T = 4 has gradient cosine 0.8500") == is_warned
    assert ("build again with --bytes-per-view 60" in done.stderr) == is_warned


def test_a_finished_run_has_nothing_to_do(run, cache):
    out, _ = run
    again = kdtrain(
        *TINY,
        "--cache",
        cache,
        "--val-data",
        "digits:test",
        "--loss",
        "kd",
        "--epochs",
        "2",
        "--out",
        out,
        "--resume",
    )
    assert again.exit_code == 0
    assert "is finished: nothing to do" in again.stdout


def test_eval_on_labels(run):
    out, _ = run
    shown = kdtrain("eval", out)
    assert shown.exit_code == 0
    assert "digits:test, 600 samples" in shown.stdout
    best = max(json.loads(line)["val_top1"] for line in (out / "metrics.jsonl").read_text().splitlines())
    found = json.loads(kdtrain("eval", out, "--json", "--device", "cpu").stdout)
    assert found["top1"] == pytest.approx(best)
    last = json.loads(kdtrain("eval", out, "--weights", "last", "--data", "digits:test", "--json").stdout)
    assert last["samples"] == 600
    assert last["agreement"] is None
    assert last["order"] is None


def test_eval_against_the_teacher(run, cache, tmp_path):
    from tests.trainer.replay_caches import write_replay_cache

    out, _ = run
    write_replay_cache(tmp_path / "test.zarr", open_source("digits:test"), views=2)
    words = ["eval", out, "--cache", tmp_path / "test.zarr", "--data", "digits:test", "--view", "1"]
    found = json.loads(kdtrain(*words, "--json").stdout)
    assert 0 < found["agreement"] < 1
    assert found["view"] == 1
    assert f"agreement with the teacher {found['agreement']:.2%} (view 1)" in kdtrain(*words).stdout
    assert "digits:test, 40 samples" in kdtrain(*words, "--limit", "40").stdout


def test_several_teachers_and_few_labels(cache, tmp_path):
    other = write_digits_cache(tmp_path / "b.zarr", seed=1, name="second")
    words = [
        *TINY,
        "--cache",
        cache,
        "--cache",
        other,
        "--loss",
        "dho",
        "--labelled",
        "0.25",
        "--epochs",
        "1",
    ]
    done = kdtrain(*words, "--val-data", "digits:test", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "teacher   synthetic, weights none; cache replay\n" in done.stdout
    assert "teacher   synthetic, weights none; cache second\n" in done.stdout
    assert "aux head  linear(mix=0.5,temperature=1)\n" in done.stdout
    assert "by pad-crop-flip; 40 have a label" in done.stdout
    found = json.loads(kdtrain("eval", tmp_path / "a", "--json", "--device", "cpu").stdout)
    assert f"held out: {found['top1']:.2%}" in done.stdout
    again = kdtrain(*words, "--val-data", "digits:test", "--out", tmp_path / "a", "--resume")
    assert "is finished: nothing to do" in again.stdout


def test_two_views_are_said(cache, tmp_path):
    done = kdtrain(*TINY, "--cache", cache, "--loss", "mlkd", "--epochs", "1", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "2 view(s) by pad-crop-flip, 2 of each sample in a batch\n" in done.stdout


def test_refusals_that_need_a_cache(cache, tmp_path):
    for words, message in (
        (["--cache", cache], "are one cache"),
        (["--aux-head", "mlp(hiden=3)", "--loss", "dho"], "did you mean 'hidden'?\n  mlp(hiden=3)\n      ^"),
        (["--loss", "ce + kd(head=aux)"], "add --aux-head linear"),
        (["--labelled", "0.5"], "ce(samples=labelled) looks only at those that have one"),
    ):
        done = kdtrain(*TINY, "--cache", cache, *words, "--out", tmp_path / "a")
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--data and --out are missing"),
        (["--data", "digits"], 2, "--out is missing"),
        ([*TINY, "--out", "x", "--optimizer", "lion"], 2, "--optimizer lion: Input should be 'sgd'"),
        ([*TINY, "--out", "x", "--mean", "1,2"], 2, "--mean 1,2: expected three numbers such as"),
        ([*TINY, "--out", "x", "--std", "a,b,c"], 2, "--std a,b,c: expected three numbers"),
        ([*TINY, "--out", "x", "--labelled", "0"], 2, "--labelled 0: Input should be greater than 0"),
        ([*TINY, "--out", "x", "--labelled", "1.5"], 2, "--labelled 1.5: Input should be less than or equal"),
        ([*TINY, "--out", "x"], 2, "without --cache"),
        ([*TINY, "--out", "x", "--cache", "no.zarr"], 1, "there is no cache here"),
        (["--data", "imagefolder:no", "--out", "x", "--recipe", "plain"], 1, "does not exist"),
        (["eval", "no-run"], 2, "no-run holds no run"),
        (["losses", "dkdd"], 2, "unknown loss 'dkdd': did you mean 'dkd'"),
    ],
)  # fmt: skip
def test_refusals_are_a_sentence_on_stderr(tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    done = kdtrain(*words)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_eval_refuses_weights_that_are_not_there(run):
    done = kdtrain("eval", run[0], "--weights", "nothing.safetensors")
    assert done.exit_code == 2
    assert "there are no weights nothing.safetensors" in done.stderr


def test_losses_are_listed_and_explained():
    listed = kdtrain("losses").stdout.splitlines()
    assert set(LOSSES) <= {line.split(" ")[0] for line in listed}
    for name in ("kd", "tgeo", "dho"):
        assert f"--loss {name} alone means:" in kdtrain("losses", name).stdout
    assert "beta = 8: Weight of the term among the other classes." in kdtrain("losses", "dkd").stdout
    assert "| `kd` | `temperature=4` |" in kdtrain("losses", "--markdown").stdout


def test_the_selftest_prints_every_loss_and_its_verdict(monkeypatch):
    done = kdtrain("losses", "--selftest")
    assert done.exit_code == 0, done.stderr
    for name in LOSSES:
        assert sum(line.startswith(f"{name} ") for line in done.stdout.splitlines()) == 2
    assert "all agree with the independent evaluation, at C = 100 and 1000" in done.stdout
    wrong = [row._replace(value=row.value + 1) if row.name == "kd" else row for row in selftest.read_golden()]
    monkeypatch.setattr(selftest, "read_golden", lambda: wrong)
    done = kdtrain("losses", "--selftest")
    assert done.exit_code == 1
    assert done.stdout.count("WRONG") == 2
    assert "2 of these differ from the independent evaluation" in done.stderr


def test_help_teaches_with_examples():
    shown = kdtrain("--help").stdout
    assert "--cache http://host:8000/v1/caches/vit_l" in shown
    assert "eval" in shown
    assert "losses" in shown
