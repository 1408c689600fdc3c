"""Whole runs: what they write, what they depend on, and what they do not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cache_builder.format import ConfigError, DataError
from tests.trainer.runs import (
    SAMPLES,
    STEPS_PER_EPOCH,
    assert_same_weights,
    config,
    weights,
    write_digits_cache,
)
from tests.trainer.servers import server
from trainer.losses import DivergedError
from trainer.run.loop import train
from trainer.teacher.client import TeacherCache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A run of three epochs, and its result."""
    out = tmp_path_factory.mktemp("runs") / "a"
    return out, train(config(out, cache, val_data="digits:test", tensorboard=True))


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_student_learns(finished):
    _, result = finished
    assert result.last.top1 > 0.3  # by chance 0.1
    assert result.last.top5 > result.last.top1
    assert result.best_top1 >= result.last.top1
    assert not result.was_finished


def test_metrics_are_one_object_an_epoch(finished):
    out, result = finished
    found = rows(out)
    assert [(row["epoch"], row["step"]) for row in found] == [
        (epoch, epoch * STEPS_PER_EPOCH) for epoch in (1, 2, 3)
    ]
    for row in found:
        assert {"lr", "train_loss", "train_ce", "train_kd", "train_top1", "train_agreement"} <= row.keys()
        assert row["train_loss"] == pytest.approx(0.5 * row["train_ce"] + 0.5 * row["train_kd"], rel=1e-5)
    assert found[-1]["val_top1"] == result.last.top1


def test_everything_is_left_in_the_folder(finished):
    out, result = finished
    assert json.loads((out / "config.json").read_text())["settings"]["eval_crop"] == 1.0
    report = (out / "report.md").read_text()
    assert f"| {result.best_epoch} (best) | {result.best_top1:.2%}".replace("%", " %") in report
    with Image.open(out / "curves.png") as curves:
        assert curves.size[0] > 600
    assert list((out / "tensorboard").glob("events.*"))
    checkpoints = sorted((out / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == [f"step-{n * STEPS_PER_EPOCH:08d}" for n in (1, 2, 3)]
    assert {path.name for path in checkpoints[0].iterdir()} == {
        "weights.safetensors",
        "state.pt",
        "config.json",
        "checksums.json",
    }


def test_tensorboard_holds_the_metrics(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, _ = finished
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("val_top1")
    assert [event.step for event in scalars] == [row["step"] for row in rows(out)]
    assert scalars[-1].value == pytest.approx(rows(out)[-1]["val_top1"])


def test_the_same_settings_give_the_same_weights(finished, cache, tmp_path):
    train(config(tmp_path / "b", cache, val_data="digits:test"))
    assert_same_weights(tmp_path / "b", finished[0])


def test_another_seed_gives_others(finished, cache, tmp_path):
    train(config(tmp_path / "b", cache, seed=1))
    ours, theirs = weights(tmp_path / "b"), weights(finished[0])
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("fetch", "workers"), [("batch", 0), ("view", 2)])
def test_a_server_gives_the_same_weights_however_records_come(finished, cache, tmp_path, fetch, workers):
    with server(cache) as url:
        train(config(tmp_path / "b", url, fetch=fetch, workers=workers))
    assert_same_weights(tmp_path / "b", finished[0])


def test_micro_batches_add_up(cache, tmp_path):
    student = "tests.trainer.runs:without_state"
    for name, accumulation in (("one", 1), ("two", 2)):
        out = tmp_path / name
        train(
            config(out, cache, student=student, accumulation=accumulation, optimizer="sgd", lr=0.05, epochs=2)
        )
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        # 3e-8 apart, or 6e-6 where a rounding puts a hidden unit on the other side of its kink.
        torch.testing.assert_close(value, two[name], rtol=1e-4, atol=2e-5)


def test_labels_alone_need_no_records(cache, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("records were fetched")

    monkeypatch.setattr(TeacherCache, "fetch", refuse)
    monkeypatch.setattr(TeacherCache, "fetch_page", refuse)
    train(config(tmp_path / "a", cache, loss="ce", epochs=1))
    assert "train_agreement" not in rows(tmp_path / "a")[0]


def test_the_hard_label_twin_sees_the_same_pixels_in_the_same_order(cache, tmp_path):
    """With the teacher's weight at zero, distillation is training on labels, bit for bit."""
    train(config(tmp_path / "ce", cache, loss="ce*1", epochs=2))
    train(config(tmp_path / "kd", cache, loss="ce*1 + kd*0", epochs=2))
    assert_same_weights(tmp_path / "ce", tmp_path / "kd")


def test_without_a_cache_views_are_drawn_here(tmp_path):
    result = train(
        config(
            tmp_path / "a", None, loss="ce", recipe="pad-crop-flip:flip=0", views=2, val_data="digits:test"
        )
    )
    assert result.last.top1 > 0.3
    written = json.loads((tmp_path / "a" / "config.json").read_text())
    assert written["caches"] == []
    assert written["view_count"] == 2
    assert written["settings"]["image_size"] == 8


def test_weights_say_how_to_use_them(finished, cache):
    from safetensors import safe_open

    out, result = finished
    with safe_open(out / "best.safetensors", framework="pt") as file:
        card = json.loads(file.metadata()["kdcache"])
    assert card["input_size"] == 8
    assert card["class_names"] == [str(digit) for digit in range(10)]
    assert card["best_epoch"] == result.best_epoch
    assert np.allclose(card["mean"], 0.5)


def test_a_finished_run_says_so(finished, cache):
    out, result = finished
    again = train(config(out, cache, val_data="digits:test"), resume=True)
    assert again.was_finished
    assert again.last == result.last
    assert (again.best_top1, again.best_epoch) == (result.best_top1, result.best_epoch)


def test_a_folder_with_a_run_is_not_written_to(finished, cache):
    with pytest.raises(ConfigError, match="already holds a run: add --resume"):
        train(config(finished[0], cache))


def test_a_folder_with_something_else_is_not_written_to(cache, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        train(config(tmp_path, cache))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_configuration_is_not_resumed(finished, cache):
    out, _ = finished
    with pytest.raises(ConfigError, match=r"settings\.lr: 0\.02 -> 0\.001\n  settings\.seed: 0 -> 3\n"):
        train(config(out, cache, val_data="digits:test", lr=1e-3, seed=3), resume=True)


def test_another_cache_is_not_resumed(finished, tmp_path):
    other = write_digits_cache(tmp_path / "other.zarr", seed=1)
    with pytest.raises(ConfigError, match=r"caches\.0\.cache_id"):
        train(config(finished[0], other, val_data="digits:test"), resume=True)


def test_divergence_is_an_error_with_advice(cache, tmp_path):
    with pytest.raises(DivergedError, match="lower the learning rate"):
        train(
            config(tmp_path / "a", cache, optimizer="sgd", lr=1e9, student="tests.trainer.runs:without_state")
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 999}, f"exceeds the {SAMPLES} training samples"),
        ({"loss": "kdd"}, "did you mean 'kd'"),
        ({"student": "cnn33"}, "did you mean 'cnn3'"),
        ({"student": "inception_v3"}, "cannot take images of 8 pixels"),
        ({"recipe": "plain"}, "--recipe and --views are the cache's"),
        ({"cache": None}, "without --cache"),
        ({"cache": None, "recipe": "plain", "views": 2}, r"has 1 view\(s\), not 2"),
        ({"cache": None, "recipe": "plain"}, "loss 'kd' needs a teacher"),
        ({"device": "tpu"}, "device 'tpu' is not one of"),
        ({"precision": "fp16"}, "needs a GPU"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(cache, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        train(config(tmp_path / "a", settings.pop("cache", cache), **settings))
    assert not (tmp_path / "a").exists()


def test_samples_beyond_the_cache_name_the_limit(cache, tmp_path):
    with pytest.raises(DataError, match=f"add --limit {SAMPLES}"):
        train(config(tmp_path / "a", cache, limit=None))


def test_a_loss_that_needs_labels_gets_them_or_says_so(tmp_path, write_flat_folder):
    folder, cache = write_flat_folder
    train(config(tmp_path / "a", cache, data=f"imagefolder:{folder}", limit=None, loss="kd*1", batch_size=8))
    with pytest.raises(ConfigError, match="loss 'dkd' needs labels, but 16 of 16 samples"):
        train(
            config(
                tmp_path / "b", cache, data=f"imagefolder:{folder}", limit=None, loss="dkd*1", batch_size=8
            )
        )


@pytest.fixture
def write_flat_folder(tmp_path):
    """A folder of 16 pictures without classes, and an unlabelled cache of them."""
    from cache_builder.datasets import open_source
    from tests.trainer.replay_caches import write_replay_cache

    rng = np.random.default_rng(0)
    folder = tmp_path / "flat"
    folder.mkdir()
    for index in range(16):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    source = open_source(f"imagefolder:{folder}")
    labelled = _Labelled(source)
    write_replay_cache(tmp_path / "flat.zarr", labelled, views=1, classes=10, unlabelled=True)
    return folder, tmp_path / "flat.zarr"


class _Labelled:
    """The made-up teacher of the tests needs labels to be right about."""

    def __init__(self, source):
        self._source, self.spec, self.ids = source, source.spec, source.ids
        self.labels, self.class_names = np.arange(len(source), dtype=np.int32) % 10, None

    def __len__(self):
        return len(self._source)

    def read(self, index):
        return self._source.read(index)
