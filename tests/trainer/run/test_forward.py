"""A micro-batch through the student and into the objective, against the same by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.runs import BATCH, assembled, next_batches, write_digits_cache
from trainer.losses import LOSSES
from trainer.run.forward import by_view, outcome_of, per_image, to_device
from trainer.run.loop import train_step
from trainer.run.metrics import TrainMeter


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    return [write_digits_cache(folder / f"{seed}.zarr", seed=seed) for seed in (0, 1)]


def test_a_loss_of_two_views_gets_both(caches, tmp_path):
    with assembled(tmp_path / "a", caches[0], loss="ce*0.5 + mlkd*0.25") as (run, stream):
        (batch,) = next_batches(run, stream)
        on_device = to_device(run, batch)
        outcome = outcome_of(run, run.student.eval(), on_device, epoch=0)
        logits = run.student(run.normalise(batch.images))
        weak, strong = logits[:BATCH], logits[BATCH:]
        teacher = run.decoders[0](batch.records[0])
        taught = torch.stack([teacher[:BATCH], teacher[BATCH:]])
        mlkd = LOSSES["mlkd"]()(torch.stack([weak, strong]), taught, None)
        ce = F.cross_entropy(weak, batch.labels) + F.cross_entropy(strong, batch.labels)
        torch.testing.assert_close(outcome.values, {"ce": ce, "mlkd": mlkd}, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(outcome.total, 0.5 * ce + 0.25 * mlkd)
        torch.testing.assert_close(outcome.answer, logits)
        labels, teacher_rows = per_image(run, on_device)
        assert torch.equal(labels, torch.cat([batch.labels, batch.labels]))
        assert torch.equal(teacher_rows, teacher)


def test_metrics_are_over_both_views(caches, tmp_path):
    with assembled(tmp_path / "a", caches[0], loss="mlkd", student="cnn3(width=2)") as (run, stream):
        meter, batches = TrainMeter(run.accelerator.device), next_batches(run, stream)
        logits = run.student(run.normalise(batches[0].images)).detach()
        train_step(run, batches, 0, 1e-3, meter)
        totals = meter.totals(run.accelerator)
        assert totals["samples"] == 2 * BATCH
        right = logits.argmax(1) == torch.cat([batches[0].labels] * 2)
        assert totals["train_top1"] == right.sum()


def test_several_teachers_stand_in_front(caches, tmp_path):
    with assembled(tmp_path / "a", caches, loss="ensemble*1 + kd(temperature=1)") as (run, stream):
        (batch,) = next_batches(run, stream)
        on_device = to_device(run, batch)
        assert on_device.teacher.shape == (2, BATCH, 10)
        outcome = outcome_of(run, run.student.eval(), on_device, epoch=0)
        each = [run.decoders[i](batch.records[i]) for i in (0, 1)]
        mean = (each[0].softmax(1) + each[1].softmax(1)) / 2
        log_q = run.student(on_device.images).log_softmax(1)
        ensemble = -(mean * log_q).sum(1).mean()
        torch.testing.assert_close(outcome.values["ensemble"], ensemble)
        torch.testing.assert_close(outcome.values["kd"], ensemble + (mean * mean.log()).sum(1).mean())
        torch.testing.assert_close(per_image(run, on_device)[1].softmax(1), mean)


def test_several_teachers_of_two_views(caches, tmp_path):
    with assembled(tmp_path / "a", caches, loss="crld") as (run, stream):
        (batch,) = next_batches(run, stream)
        on_device = to_device(run, batch)
        assert on_device.teacher.shape == (2, 2, BATCH, 10)
        second = run.decoders[1](batch.records[1])
        assert torch.equal(on_device.teacher[1, 1], second[BATCH:])
        assert per_image(run, on_device)[1].shape == (2 * BATCH, 10)
        outcome_of(run, run.model, on_device, 0).total.backward()


def test_a_term_looks_at_its_own_head(caches, tmp_path):
    settings = {"loss": "ce + kd(temperature=2, head=aux)*0.5", "aux_head": "linear(mix=0.25, temperature=3)"}
    with assembled(tmp_path / "a", caches[0], student="cnn3(width=2)", **settings) as (run, stream):
        (batch,) = next_batches(run, stream)
        on_device = to_device(run, batch)
        outcome = outcome_of(run, run.model, on_device, 0)
        main, aux = run.student(on_device.images)
        kd = LOSSES["kd"](temperature=2.0)(aux, on_device.teacher, None)
        torch.testing.assert_close(outcome.values, {"ce": F.cross_entropy(main, batch.labels), "kd": kd})
        mixed = 0.75 * main.softmax(1) + 0.25 * (aux / 3).softmax(1)
        torch.testing.assert_close(outcome.answer.exp(), mixed.detach())


def test_without_any_label_there_are_none(caches, tmp_path):
    with assembled(tmp_path / "a", caches[0], loss="kd*1", labelled=0.1) as (run, stream):
        (batch,) = next_batches(run, stream)
        assert (to_device(run, batch).labels == batch.labels).all()
        run.dataset.labelled = 0
        assert to_device(run, batch).labels is None
        assert per_image(run, to_device(run, batch))[0] is None


def test_rows_are_view_major():
    logits = torch.arange(2 * 6 * 3).reshape(2, 6, 3)
    split = by_view(logits, 2)
    assert split.shape == (2, 2, 3, 3)
    assert torch.equal(split[:, 1], logits[:, 3:])
    assert by_view(logits, 1) is logits
