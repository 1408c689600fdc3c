from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cache_builder.datasets import open_source
from cache_builder.datasets.orders import OrderTally
from cache_builder.tensors.normalise import Normalise
from cache_builder.views.recipes import Plain
from cache_builder.views.replay import Replay
from trainer.replay.view_dataset import ViewDataset
from trainer.run.device import make_accelerator
from trainer.run.metrics import Evaluator, TrainMeter


def batch(seed, count=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = torch.randn(2, count, classes, generator=generator)
    return logits, torch.randint(classes, (count,), generator=generator), teacher


def test_training_means_are_over_samples_not_batches():
    meter, accelerator = TrainMeter(torch.device("cpu")), make_accelerator("cpu", "fp32")
    batches = [batch(0, 6), batch(1, 2)]
    for index, (logits, labels, teacher) in enumerate(batches):
        meter.add(torch.tensor(float(index)), {"kd": torch.tensor(2.0 * index)}, logits, labels, teacher)
    logits, labels, teacher = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert meter.means(accelerator) == pytest.approx(
        {
            "train_loss": 2 / 8,
            "train_kd": 4 / 8,
            "train_top1": (logits.argmax(1) == labels).float().mean().item(),
            "teacher_top1": (teacher.argmax(1) == labels).float().mean().item(),
            "train_agreement": (logits.argmax(1) == teacher.argmax(1)).float().mean().item(),
        }
    )


def test_only_labelled_samples_count_for_the_accuracy():
    meter, accelerator = TrainMeter(torch.device("cpu")), make_accelerator("cpu", "fp32")
    logits, labels, teacher = batch(0, 6)
    right = logits.argmax(1)
    labels = torch.where(torch.arange(6) < 4, right, -1)
    labels[0] = (right[0] + 1) % 4
    meter.add(torch.tensor(1.0), {}, logits, labels, teacher)
    meter.add(torch.tensor(1.0), {}, logits, torch.full((6,), -1), teacher)
    means = meter.means(accelerator)
    assert means["train_top1"] == 3 / 4
    assert means["teacher_top1"] == (teacher.argmax(1) == labels)[:4].float().mean().item()
    assert means["train_agreement"] == (right == teacher.argmax(1)).float().mean().item()
    meter.reset()
    meter.add(torch.tensor(1.0), {}, logits, labels, teacher, are_teachers=False)
    assert "teacher_top1" not in meter.means(accelerator)
    meter.reset()
    meter.add(torch.tensor(1.0), {}, logits, torch.full((6,), -1), None)
    assert meter.means(accelerator) == {"train_loss": 1.0}


def test_sums_survive_a_checkpoint():
    accelerator = make_accelerator("cpu", "fp32")
    whole, first, second = (TrainMeter(torch.device("cpu")) for _ in range(3))
    for seed in range(4):
        logits, labels, teacher = batch(seed)
        for meter in (whole, first if seed < 2 else second):
            if seed == 2 and meter is second:
                second.restore(first.totals(accelerator), is_main=True)
            meter.add(torch.tensor(0.5), {}, logits, labels, teacher)
    assert second.means(accelerator) == whole.means(accelerator)


def test_an_empty_meter_has_no_means():
    assert TrainMeter(torch.device("cpu")).means(make_accelerator("cpu", "fp32")) == {}


@pytest.mark.parametrize("batch_size", [7, 600])
def test_evaluation_agrees_with_numpy(batch_size):
    source = open_source("digits:test")
    dataset = ViewDataset(source, Replay(Plain(crop_fraction=1.0), 0, 1, len(source), 8, "bilinear"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 10)).train()
    normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    evaluator = Evaluator(dataset, 10, batch_size, 0, make_accelerator("cpu", "fp32"))
    found = evaluator.run(model, normalise)
    images = torch.stack([source.read(row).value for row in range(len(source))])
    with torch.inference_mode():
        logits = model.eval()(normalise(images)).double().numpy()
    order = (-logits).argsort(1)
    assert found.top1 == pytest.approx((order[:, 0] == source.labels).mean())
    assert found.top5 == pytest.approx((order[:, :5] == source.labels[:, None]).any(1).mean())
    log_sums = np.log(np.exp(logits).sum(1))
    assert found.nll == pytest.approx((log_sums - logits[np.arange(600), source.labels]).mean(), rel=1e-5)
    assert evaluator.run(model, normalise) == found


def test_fewer_than_five_classes_count_all():
    source = open_source("digits:test")
    source.labels = source.labels % 3
    source.class_names = ("a", "b", "c")
    dataset = ViewDataset(source, Replay(Plain(crop_fraction=1.0), 0, 1, len(source), 8, "bilinear"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    found = Evaluator(dataset, 3, 100, 0, make_accelerator("cpu", "fp32")).run(model, normalise)
    assert found.top5 == 1.0
    assert found.top1 < 1.0


@pytest.mark.parametrize("shift", [0, 1])
def test_a_numbering_that_suits_the_student_far_better_is_found(shift):
    """Labels counted from 1, of a student that learned them from 0: numbers alone, which no name matched."""
    source = open_source("digits:test")
    images = torch.stack([source.read(row).value for row in range(len(source))]).float().flatten(1) / 255
    means = torch.stack([images[source.labels == digit].mean(0) for digit in range(10)])
    nearest = nn.Linear(192, 10)
    nearest.weight.data, nearest.bias.data = means, -means.square().sum(1) / 2
    source.labels = (source.labels + shift) % 10
    dataset = ViewDataset(source, Replay(Plain(crop_fraction=1.0), 0, 1, len(source), 8, "bilinear"))
    tally = OrderTally(None, 10, views=1)
    evaluator = Evaluator(dataset, 10, 64, 0, make_accelerator("cpu", "fp32"), tally)
    found = evaluator.run(nn.Sequential(nn.Flatten(), nearest), Normalise((0, 0, 0), (1, 1, 1)))
    better = tally.better()
    assert (better is not None) == bool(shift)
    if better is not None:
        assert better.top1 == pytest.approx(found.top1)
        assert better.top1 < 0.2 < 0.8 < better.better
        assert "probably not in the student's order" in better.warning("csv:d.csv", "evaluate", "student")
