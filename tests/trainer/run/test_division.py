from __future__ import annotations

import pytest

from cache_builder.format import ConfigError
from tests.trainer.runs import assembled, write_digits_cache
from trainer.run.division import Division, check_division


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def test_losses_that_compare_samples_go_on_with_micro_batches_of_the_same_samples(cache, tmp_path):
    with assembled(tmp_path, cache, loss="kd + dist", accumulation=2) as (run, _):
        check_division(run, Division(2, 1))
        with pytest.raises(ConfigError, match=r"'dist' compares .* by 4 process.* whose product is 4"):
            check_division(run, Division(4, 1))


def test_a_loss_that_takes_trial_steps_goes_on_as_it_was(cache, tmp_path):
    with assembled(tmp_path, cache, loss="tgeo", accumulation=2) as (run, _):
        check_division(run, Division(1, 2))
        with pytest.raises(ConfigError, match="'tgeo' takes a trial step"):
            check_division(run, Division(2, 1))


def test_what_changes_of_the_student_is_told(cache, tmp_path, caplog):
    with assembled(tmp_path, cache) as (run, _):
        check_division(run, Division(1, 1))
        assert not caplog.text
        check_division(run, Division(2, 2))
        assert "BatchNorm sees 32 samples at once, before 8" in caplog.text
        assert "dropout" in caplog.text
        caplog.clear()
        check_division(run, Division(1, 2))  # other shapes are drawn by the same generators
        assert "dropout" in caplog.text
