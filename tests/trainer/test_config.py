from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from tests.trainer.test_report import run_config
from trainer.config import RunConfig, TrainConfig, differing_fields


def test_every_setting_has_a_docstring():
    undocumented = [name for name, field in TrainConfig.model_fields.items() if not field.description]
    assert undocumented == []


def test_unknown_settings_are_refused(tmp_path):
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainConfig.model_validate({"data": "digits", "out": tmp_path, "learning_rate": 1})


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


def test_choices_are_closed():
    assert get_args(TrainConfig.model_fields["fetch"].annotation) == ("auto", "batch", "view")
