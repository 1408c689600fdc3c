"""What a loss will not get is said before anything is written."""

from __future__ import annotations

import pytest

from cache_builder.format import ConfigError
from tests.trainer.runs import SAMPLES, config, write_digits_cache
from trainer.run.loop import train


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ce + kd(head=aux)"}, r"loss 'kd' looks at an auxiliary head .*add --aux-head linear"),
        ({"loss": "kd", "aux_head": "linear"}, "no loss looks at the auxiliary head 'linear'"),
        ({"loss": "kd", "aux_head": "linaer"}, "unknown auxiliary head 'linaer'"),
        ({"loss": "kd(head=aux)", "aux_head": "mlp"}, "every loss looks at the auxiliary head"),
        (
            {"loss": "dho", "student": "tests.trainer.run.test_requirements:convolutions"},
            "Sequential has no Linear layer with 10 outputs",
        ),
        ({"loss": "dkd*1", "labelled": 0.3}, r"112 of 160 .* have none: dkd\(samples=labelled\) looks only"),
        ({"loss": "tgeo*1 + ce", "labelled": 0.3}, r"loss 'tgeo' needs labels, but 112 of 155"),
        (
            {"loss": "tgeo(samples=labelled)", "labelled": 0.001},
            "looks at labelled samples, but none of the 159",
        ),
        ({"loss": "ltkd(groups=[0,1,2])"}, "groups names 3 classes of 10"),
        ({"loss": "ctkd(loss=ce)"}, "learns a temperature"),
    ],
)
def test_before_anything_is_written(cache, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        train(config(tmp_path / "a", cache, **settings))
    assert not (tmp_path / "a").exists()


def convolutions(num_classes):
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("loss", ["mlkd", "crld"])
def test_one_view_is_not_enough_to_compare_two(tmp_path, loss):
    from cache_builder.datasets import LimitedSource, open_source
    from tests.trainer.replay_caches import write_replay_cache

    source = LimitedSource(open_source("digits:train"), SAMPLES)
    write_replay_cache(tmp_path / "one.zarr", source, views=1, name="one")
    with pytest.raises(
        ConfigError,
        match=rf"loss '{loss}' compares 2 views of every sample, but cache 'one' has 1: rebuild it with "
        "kdcache build --views 2 or more, or use --loss mlkd_single_view",
    ):
        train(config(tmp_path / "a", tmp_path / "one.zarr", loss=loss))
    assert not (tmp_path / "a").exists()
    train(config(tmp_path / "b", tmp_path / "one.zarr", loss="mlkd_single_view", epochs=1))


def test_labelled_samples_must_exist(tmp_path):
    from cache_builder.datasets import LimitedSource, open_source
    from tests.trainer.replay_caches import write_replay_cache

    source = LimitedSource(open_source("digits:train"), 40)
    write_replay_cache(tmp_path / "u.zarr", source, classes=12, unlabelled=True)
    settings = {"limit": 40, "student": "cnn3(width=2)"}
    for loss in ("dho", "tgeo(samples=labelled)"):
        with pytest.raises(ConfigError, match="looks at labelled samples, but none of the 40 samples"):
            train(config(tmp_path / "a", tmp_path / "u.zarr", loss=loss, **settings))
    with pytest.raises(ConfigError, match="does not know the class groups"):
        train(config(tmp_path / "a", tmp_path / "u.zarr", loss="ltkd*1", **settings))
    assert not (tmp_path / "a").exists()
