"""Runs with more than one view, teacher or head, and with labels for some of the samples."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from cache_builder.format import ConfigError
from cache_builder.teachers import TeacherRequest, open_teacher
from tests.trainer.runs import SAMPLES, assembled, assert_same_weights, config, weights, write_digits_cache
from tests.trainer.servers import server
from trainer.losses.decoupled import groups_by_count
from trainer.run.evaluate import evaluate_run
from trainer.run.loop import train
from trainer.students import make_student

STATELESS = "tests.trainer.runs:without_state"


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    return [write_digits_cache(folder / f"{seed}.zarr", seed=seed, name=f"c{seed}") for seed in (0, 1)]


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def stored(out):
    return json.loads((out / "config.json").read_text())


def assert_close_weights(run, other):
    ours, theirs = weights(run), weights(other)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("fetch", "workers"), [("batch", 0), ("view", 2)])
def test_two_views_give_the_same_weights_however_they_come(caches, tmp_path, fetch, workers):
    train(config(tmp_path / "a", caches[0], loss="mlkd", epochs=2))
    with server(caches[0]) as url:
        train(config(tmp_path / "b", url, loss="mlkd", epochs=2, fetch=fetch, workers=workers))
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_micro_batches_of_two_views_add_up(caches, tmp_path):
    settings = {"loss": "ce + crld", "student": STATELESS, "optimizer": "sgd", "lr": 0.01, "epochs": 2}
    for name, accumulation in (("one", 1), ("two", 2)):
        train(config(tmp_path / name, caches[0], accumulation=accumulation, **settings))
    assert_close_weights(tmp_path / "one", tmp_path / "two")


def test_an_ensemble_of_one_is_its_teacher(caches, tmp_path):
    train(config(tmp_path / "a", caches[:1], loss="ensemble*1", epochs=2))
    train(config(tmp_path / "b", caches[0], loss="forward_ce*1", epochs=2))
    assert_same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("loss", ["ensemble", "kd(temperature=1)*1"])
def test_two_teachers_teach_what_neither_does_in_any_order(caches, tmp_path, loss):
    settings = {"loss": loss, "student": STATELESS, "optimizer": "sgd", "lr": 0.05, "epochs": 2}
    train(config(tmp_path / "both", caches, **settings))
    train(config(tmp_path / "turned", caches[::-1], **settings))
    train(config(tmp_path / "first", caches[:1], **settings))
    assert_close_weights(tmp_path / "both", tmp_path / "turned")
    with pytest.raises(AssertionError):
        assert_close_weights(tmp_path / "both", tmp_path / "first")
    assert [facts["name"] for facts in stored(tmp_path / "both")["caches"]] == ["c0", "c1"]
    report = (tmp_path / "both" / "report.md").read_text()
    assert all(f"from cache `{name}`" in report for name in ("c0", "c1"))


def test_teachers_may_lie_in_different_places(caches, tmp_path):
    train(config(tmp_path / "a", caches, loss="ensemble", epochs=2))
    with server(caches[1]) as url:
        train(config(tmp_path / "b", [caches[0], url], loss="ensemble", epochs=2))
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_another_second_teacher_is_not_resumed(caches, tmp_path):
    train(config(tmp_path / "a", caches, loss="ensemble", epochs=1))
    other = write_digits_cache(tmp_path / "other.zarr", seed=2)
    for wanted in ([caches[0], other], caches[:1]):
        with pytest.raises(ConfigError, match=r"caches\.1\.cache_id"):
            train(config(tmp_path / "a", wanted, loss="ensemble", epochs=1), resume=True)


@pytest.mark.parametrize(
    ("loss", "aux_head"),
    [("dho", None), ("binary_kl", None), ("ce + kd(head=aux)", "mlp(hidden=9, mix=0.3)")],
)
def test_weights_with_an_auxiliary_head_work_elsewhere(caches, tmp_path, loss, aux_head):
    out = tmp_path / "a"
    settings = {"loss": loss, "aux_head": aux_head, "val_data": "digits:test", "student": STATELESS}
    result = train(config(out, caches[0], **settings))
    assert evaluate_run(out, None, weights="last", device="cpu").top1 == pytest.approx(result.last.top1)
    with safe_open(out / "last.safetensors", framework="pt") as file:
        card = json.loads(file.metadata()["kdcache"])
    used = aux_head or {"dho": "linear(mix=0.5,temperature=1)", "binary_kl": "mlp"}[loss]
    assert used.startswith(card["aux_head"]["kind"])
    assert stored(out)["settings"]["aux_head"] == used
    teacher = open_teacher(STATELESS, TeacherRequest(weights=str(out / "last.safetensors")))
    bare = make_student(STATELESS, 10, 8).eval()
    bare.load_state_dict(weights(out), strict=False)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.model(images), bare(images)) == (card["aux_head"]["mix"] == 0)
    assert teacher.class_names == tuple("0123456789")


def test_two_heads_learn_what_two_students_do_not(caches, tmp_path):
    """With the features shared, the auxiliary head's loss moves the main head's answer as well."""
    for name, weight in (("without", 0), ("with", 1)):
        loss = f"ce + kd(head=aux)*{weight}"
        train(config(tmp_path / name, caches[0], loss=loss, aux_head="linear", student=STATELESS, epochs=1))
    ours, theirs = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert not torch.equal(ours["0.weight"], theirs["0.weight"])


def test_some_labels_are_enough_for_terms_that_say_so(caches, tmp_path):
    out = tmp_path / "a"
    train(config(out, caches[0], loss="dho", labelled=0.2, epochs=2))
    assert stored(out)["labelled"] == 32
    assert (
        "160 samples at 8 px, 2 view(s) by pad-crop-flip; 32 have a label" in (out / "report.md").read_text()
    )
    assert all(0 <= row["train_top1"] <= 1 for row in rows(out))
    with pytest.raises(ConfigError, match=r"settings\.labelled: 0\.2 -> 0\.5"):
        train(config(out, caches[0], loss="dho", labelled=0.5, epochs=2), resume=True)


def test_what_is_set_aside_is_told_and_never_trained_on(caches, tmp_path):
    out = tmp_path / "a"
    train(config(out, caches[0], loss="tgeo", epochs=1))
    assert (stored(out)["samples"], stored(out)["set_aside"]) == (SAMPLES - 16, 16)
    assert "16 more are set aside for tgeo" in (out / "report.md").read_text()
    with assembled(tmp_path / "b", caches[0], loss="tgeo") as (run, _):
        assert not set(run.dataset.rows) & set(run.set_aside.rows)
        assert run.plan.samples == len(run.dataset) == SAMPLES - 16


def test_losses_hear_how_often_each_class_occurs(caches, tmp_path):
    with assembled(tmp_path / "a", caches[0], loss="ce(samples=labelled) + ltkd", labelled=0.3) as (run, _):
        labels = torch.from_numpy(run.dataset.labels[run.dataset.labels >= 0])
        assert len(labels) == 48
        groups = groups_by_count(labels.bincount(minlength=10))
        assert run.objective.losses[1].groups == groups
