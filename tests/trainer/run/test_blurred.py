"""A cache that serves a loss badly is named before training."""

from __future__ import annotations

import pytest

from tests.caches import synthetic_manifest
from tests.rate_points import rate_point, with_table
from trainer.losses import LOSSES, make_loss
from trainer.run.blurred import blurred

COARSE = rate_point(30, 0.2, (0.97, 0.85), worst=0.6)
FINE = rate_point(60, 0.02, (0.999, 0.99), worst=0.96)


@pytest.mark.parametrize(
    ("loss", "fields", "measured"),
    [
        ("kd", {"temperature": 4.0}, "kd at T = 4 has gradient cosine 0.8500"),
        ("kd", {"temperature": 1.0}, None),
        ("forward_ce", {}, None),
        ("mlkd", {}, "kd at T = 4"),
        ("mse", {}, "kd at T = 4"),
        ("standardized", {"loss": {"name": "kd", "configuration": {"temperature": 1}}}, "kd at T = 4"),
        ("swap", {"loss": {"name": "kd", "configuration": {"temperature": 1}}}, None),
        ("swap", {"loss": {"name": "mse", "configuration": {}}}, "kd at T = 4"),
        ("ctkd", {}, "kd at T = 4"),
        ("tad", {}, "the worst of the losses that calibration tried has gradient cosine 0.6000"),
    ],
)
def test_by_what_the_loss_looks_at(loss: str, fields: dict[str, object], measured: str | None) -> None:
    said = list(blurred([make_loss(loss, fields)], with_table(COARSE, FINE)))
    assert len(said) == (measured is not None)
    if measured:
        assert said[0].startswith(f"WARNING: cache 'synthetic' serves {loss} badly: {measured}")
        assert "take a loss at T = 1, such as kd(temperature=1), or build again with" in said[0]
        assert "60.0 bytes a view" in said[0]


def test_no_loss_is_served_badly_by_a_faithful_cache() -> None:
    manifest = with_table(COARSE, FINE, chosen=1)
    assert not list(blurred([make_loss(name, {}) for name in LOSSES], manifest))


def test_losses_of_one_measure_share_a_sentence() -> None:
    losses = [make_loss("kd", {}), make_loss("mse", {}), make_loss("kd", {"temperature": 2.0})]
    (said,) = blurred(losses, with_table(COARSE, FINE))
    assert "serves kd, mse badly" in said


def test_where_temperature_1_is_bad_as_well_it_is_no_way_out() -> None:
    bad = rate_point(30, 0.5, (0.9, 0.5), worst=0.3)
    (said,) = blurred([make_loss("kd", {"temperature": 1.0})], with_table(bad))
    assert "kd at T = 1 has gradient cosine 0.9000" in said
    assert "take a loss" not in said


def test_caches_of_earlier_releases_go_by_the_worst_loss() -> None:
    (said,) = blurred([make_loss("kd", {})], with_table(rate_point(30, None, None, 0.9)))
    assert "calibration tried has gradient cosine 0.9000" in said
    assert not list(blurred([make_loss("kd", {})], with_table(rate_point(30, None, None, 0.96))))
    assert not list(blurred([make_loss("kd", {})], synthetic_manifest()))
