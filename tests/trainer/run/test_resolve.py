"""What a run decides for itself."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.trainer.runs import config, write_digits_cache
from trainer.run.assemble import assemble
from trainer.run.resolve import usual_batch_size


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def resolved(tmp_path, cache, **settings):
    given = {"lr": None, "student": "cnn3(width=2)", **settings}
    with ExitStack() as stack:
        return assemble(config(tmp_path / "a", cache, **given), stack).config


def test_the_rate_follows_the_batch_for_sgd_only(tmp_path, cache):
    sgd = resolved(tmp_path, cache, optimizer="sgd", batch_size=64).settings
    assert (sgd.lr, sgd.weight_decay) == (0.025, 1e-4)
    adamw = resolved(tmp_path, cache, optimizer="adamw", batch_size=64).settings
    assert (adamw.lr, adamw.weight_decay) == (1e-3, 0.05)
    assert resolved(tmp_path, cache, lr=0.7).settings.lr == 0.7


@pytest.mark.parametrize(
    ("images", "accumulation", "expected"),
    [(1000, 1, 128), (1000, 3, 126), (90, 1, 90), (90, 4, 88), (2, 4, 4)],
)
def test_a_batch_is_128_images_or_what_there_is(images, accumulation, expected):
    assert usual_batch_size(images, accumulation) == expected


def test_a_run_on_few_images_has_smaller_batches(tmp_path, cache):
    few = resolved(tmp_path, cache, batch_size=None, limit=90).settings
    assert (few.batch_size, few.lr) == (90, pytest.approx(0.1 * 90 / 256) if few.optimizer == "sgd" else 1e-3)


def test_the_teacher_says_size_and_normalisation(tmp_path, cache):
    settings = resolved(tmp_path, cache).settings
    assert (settings.image_size, settings.mean, settings.std) == (8, (0.5,) * 3, (0.5,) * 3)
    own = resolved(tmp_path, cache, image_size=12, mean=(0.1, 0.2, 0.3)).settings
    assert (own.image_size, own.mean) == (12, (0.1, 0.2, 0.3))


def test_small_images_are_evaluated_whole_and_follow_cifar(tmp_path, cache):
    small = resolved(tmp_path, cache, loss="kd")
    assert small.settings.eval_crop == 1.0
    assert [str(term) for term in small.objective] == ["ce*0.1", "kd(temperature=4)*0.9"]
    assert "CIFAR-100" in small.objective_source
    chosen = resolved(tmp_path, cache, loss="kd", published="imagenet")
    assert [str(term) for term in chosen.objective] == ["ce*0.5", "kd(temperature=1)*0.5"]
    large = resolved(tmp_path, cache, loss="kd", image_size=96)
    assert large.settings.eval_crop == 0.875
    assert "ImageNet" in large.objective_source


def test_without_a_cache(tmp_path):
    config = resolved(tmp_path, None, loss="ce", recipe="pad-crop-flip", epochs=7)
    assert config.settings.views == config.view_count == 7
    assert config.settings.mean == (0.485, 0.456, 0.406)
    assert config.caches == ()
    assert config.class_names == tuple("0123456789")
    assert resolved(tmp_path, None, loss="ce", recipe="plain").view_count == 1


def test_label_smoothing_reaches_the_objective(tmp_path, cache):
    terms = resolved(tmp_path, cache, loss="ce + kd*1", label_smoothing=0.1).objective
    assert terms[0].configuration == {"label_smoothing": 0.1}
    assert terms[1].configuration == {}


def test_lower_precision_trains_too(tmp_path, cache):
    from trainer.run.loop import train

    result = train(config(tmp_path / "a", cache, precision="bf16", val_data="digits:test"))
    assert result.last.top1 > 0.2  # by chance 0.1
