from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from tests.trainer.run.test_report import run_config
from trainer.objective.written import parse_objective
from trainer.run.config import RunConfig, differing_fields
from trainer.run.settings import TrainSettings


def test_every_setting_has_a_docstring():
    undocumented = [name for name, field in TrainSettings.model_fields.items() if not field.description]
    assert undocumented == []


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainSettings.model_validate({"data": "digits", "out": tmp_path, "learning_rate": 1})


def test_it_comes_back_from_json(tmp_path):
    config = run_config(tmp_path)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_only_what_changes_the_result_is_compared(tmp_path):
    config = run_config(tmp_path)
    moved = run_config(tmp_path / "elsewhere", workers=3, fetch="view", device="cuda", patience_s=1.0)
    assert differing_fields(config, moved) == []
    assert differing_fields(config, run_config(tmp_path, seed=1)) == ["settings.seed: 0 -> 1"]
    other = config.model_copy(update={"view_seed": 5})
    assert differing_fields(config, other) == ["view_seed: 0 -> 5"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ()), ("a.zarr", ("a.zarr",)), (["a.zarr", "b.zarr"], ("a.zarr", "b.zarr")), ((), ())],
)
def test_caches_may_be_none_one_or_many(tmp_path, given, expected):
    settings = TrainSettings.model_validate({"data": "digits", "out": tmp_path, "cache": given})
    assert settings.cache == expected
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


def test_what_differs_inside_a_list_is_named_by_its_place(tmp_path):
    config = run_config(tmp_path)
    facts = config.caches[0].model_copy(update={"cache_id": "other"})
    other = config.model_copy(update={"caches": (facts,)})
    assert differing_fields(config, other) == ["caches.0.cache_id: 'abc123' -> 'other'"]
    more = config.model_copy(update={"caches": (*config.caches, facts)})
    assert [line.split(":")[0] for line in differing_fields(config, more)] == [
        "caches.1.cache_id",
        "caches.1.name",
        "caches.1.teacher",
    ]


def test_the_data_in_words(tmp_path):
    config = run_config(tmp_path, image_size=8)
    assert config.data_in_words == "160 samples at 8 px, 2 view(s) by plain"
    two = config.model_copy(update={"views_per_sample": 2, "labelled": 32})
    assert two.data_in_words.endswith("by plain, 2 of each sample in a batch; 32 have a label")
    terms = parse_objective("tgeo + tgeo*2", "cifar100")
    aside = config.model_copy(update={"samples": 144, "set_aside": 16, "objective": terms})
    assert aside.data_in_words.endswith("by plain; 16 more are set aside for tgeo")


def test_choices_are_closed():
    assert get_args(TrainSettings.model_fields["fetch"].annotation) == ("auto", "batch", "view")
