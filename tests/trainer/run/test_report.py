from __future__ import annotations

import pytest
from PIL import Image

from cache_builder.format.manifest import NamedConfiguration
from tests.trainer.runs import config
from trainer.objective.written import parse_objective, published
from trainer.run.config import CacheFacts, DecidedSettings, RunConfig
from trainer.run.report import draw_curves, report_text


def run_config(tmp_path, **settings):
    asked = config(tmp_path, "http://host/v1/caches/c", val_data="digits:test", **settings).model_dump()
    usual = {"image_size": 8, "weight_decay": 0.05, "warmup_epochs": 0.15, "eval_crop": 1.0}
    decided = usual | {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return RunConfig(
        product_version="1",
        settings=DecidedSettings.model_validate(
            {name: decided.get(name) if value is None else value for name, value in asked.items()}
        ),
        objective=parse_objective("kd", "cifar100"),
        objective_source=published("kd", "cifar100").source,
        objective_benchmark="cifar100",
        classes=10,
        class_names=None,
        samples=160,
        labelled=160,
        view_count=2,
        view_seed=0,
        view_recipe=NamedConfiguration(name="plain"),
        interpolation="bilinear",
        caches=(CacheFacts(cache_id="abc123", name="c", teacher="torchvision:vit_l_16, weights none"),),
    )


def row(epoch, **values):
    return {
        "step": epoch,
        "epoch": epoch,
        "lr": 0.1 / epoch,
        "train_loss": 1 / epoch,
        "train_kd": 1.0,
        **values,
    }


def test_it_tells_the_best_and_the_last_epoch(tmp_path):
    rows = [
        row(1, train_top1=0.2, train_agreement=0.3, val_top1=0.5, val_top5=0.9, val_nll=1.25),
        row(2, train_top1=0.4, train_agreement=0.5, val_top1=0.4, val_top5=0.8, val_nll=1.5),
    ]
    text = report_text(str(tmp_path), run_config(tmp_path), rows, weights=1234)
    assert "| 1 (best) | 50.00 % | 90.00 % | 1.2500 | 20.00 % | 30.00 % |" in text
    assert "| 2 (last) | 40.00 % | 80.00 % | 1.5000 | 40.00 % | 50.00 % |" in text
    assert "the published cifar100 objective; arXiv 1503.02531" in text
    assert "abc123" in text
    assert "1,234 weights" in text
    assert "| seed | `0` |" in text
    assert "kdtrain eval" in text


def test_what_was_not_measured_is_a_dash(tmp_path):
    text = report_text(str(tmp_path), run_config(tmp_path), [row(1)], weights=1)
    assert "| 1 (last) | – | – | – | – | – |" in text
    assert "(best)" not in text


@pytest.mark.parametrize("rows", [[row(1)], [row(epoch, val_nll=1.0, val_top1=0.1) for epoch in (1, 2, 3)]])
def test_curves_are_a_picture(tmp_path, rows):
    draw_curves(tmp_path / "curves.png", rows)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        # Something is drawn: not one colour only.
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 10
