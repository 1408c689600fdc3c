from __future__ import annotations

import pytest

from cache_builder.build.settings import BuildSettings
from cache_builder.console.names import unknown_name
from cache_builder.console.options import Option
from cache_builder.console.recipes import check_recipe
from cache_builder.format.errors import ConfigError
from trainer.run.settings import TrainSettings


def test_nearest() -> None:
    known = ["vit_l_16", "vit_b_16", "resnet50"]
    assert unknown_name("teacher", "vit_l16", known).startswith(
        "unknown teacher 'vit_l16': did you mean 'vit_l_16'"
    )


def test_nothing_near_lists_what_there_is() -> None:
    assert unknown_name("recipe", "zzz", ["b", "a"]) == "unknown recipe 'zzz': known: a, b"
    assert unknown_name("recipe", "zzz", map(str, range(100))).count(",") < 30


def test_both_programs_look_at_recipes_with_one_function() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'rrc-flop'"):
        check_recipe("rrc-flop")
    for settings in (BuildSettings, TrainSettings):
        options = [part for part in settings.model_fields["recipe"].metadata if isinstance(part, Option)]
        assert check_recipe in [option.check for option in options]
