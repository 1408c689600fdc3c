"""What a comparison consists of, and when a folder goes on with it."""

from __future__ import annotations

import json

import pytest

from cache_builder.format import ConfigError, DataError
from tests.trainer.comparison.test_report import plan
from tests.trainer.runs import config, write_digits_cache
from trainer.comparison.folder import PLAN
from trainer.comparison.plan import begin, differing_settings, plan_comparison


def test_runs_come_seed_by_seed_with_hard_labels_first(tmp_path):
    jobs = plan(tmp_path, "kd,dkd", seeds=2).jobs(tmp_path)
    assert [job.name for job in jobs] == [
        *("hard labels, seed 0", "kd, seed 0", "dkd, seed 0"),
        *("hard labels, seed 1", "kd, seed 1", "dkd, seed 1"),
    ]
    assert jobs[-1].folder == tmp_path / "runs" / "dkd" / "seed-1"
    assert jobs[-1].log == tmp_path / "logs" / "dkd-seed-1.log"


def test_everything_is_resolved(tmp_path):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    settings = config(tmp_path / "a", cache, val_data="digits:test", loss="kd", seed=5, lr=None)
    made = plan_comparison(settings, "kd", seeds=2)
    decided = made.baseline.settings
    assert (decided.loss, decided.seed, decided.image_size) == ("ce", 0, 8)
    assert decided.lr == 1e-3
    assert made.methods[1].minimises == "ce*0.1 + kd(temperature=4)*0.9"
    imagenet = settings.model_copy(update={"published": "imagenet"})
    assert plan_comparison(imagenet, "kd", seeds=2).methods[1].minimises == "ce*0.5 + kd(temperature=1)*0.5"


def test_the_same_goes_on_and_other_settings_are_refused(tmp_path):
    stored = plan(tmp_path, "kd,pld", seeds=2)
    begin(tmp_path, stored)
    begin(tmp_path, plan(tmp_path, "pld,kd", seeds=2, workers=3, device="cuda"))
    with pytest.raises(ConfigError, match="holds a comparison of other settings") as refused:
        begin(tmp_path, plan(tmp_path, "kd,dkd", seeds=3, lr=1.0, student="resnet20"))
    assert [line.strip() for line in str(refused.value).splitlines()[1:-1]] == [
        "settings.lr: 0.02 -> 1.0",
        "settings.student: 'tests.trainer.runs:with_dropout' -> 'resnet20'",
        "seeds: 2 -> 3",
        "losses, pld: pld(temperature=4)*1 -> not compared",
        "losses, dkd: not compared -> ce*1 + dkd(alpha=1, beta=8, temperature=4, warmup_epochs=20.0)*1",
    ]


def test_an_objective_whose_meaning_changed_is_another(tmp_path):
    stored = plan(tmp_path, "kd")
    method = stored.methods[1].model_copy(update={"objective": stored.methods[0].objective})
    changed = stored.model_copy(update={"methods": (stored.methods[0], method)})
    assert differing_settings(stored, changed) == ["losses, kd: ce*0.1 + kd(temperature=4)*0.9 -> ce*1"]


def test_another_cache_is_another_comparison(tmp_path):
    stored = plan(tmp_path, "kd")
    (facts,) = stored.baseline.caches
    other = stored.baseline.model_copy(update={"caches": (facts.model_copy(update={"cache_id": "xyz"}),)})
    assert differing_settings(stored, stored.model_copy(update={"baseline": other})) == [
        "caches.0.cache_id: 'abc123' -> 'xyz'"
    ]


def test_a_plan_of_another_release_is_named(tmp_path):
    begin(tmp_path, plan(tmp_path, "kd"))
    stored = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps({**stored, "sedes": 3}))
    with pytest.raises(DataError, match=r"compare\.json is not the plan of a comparison of this release"):
        begin(tmp_path, plan(tmp_path, "kd"))
