from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.main import get_command

from cache_builder.build.settings import BuildSettings
from cache_builder.calibration.topk_tail import EXACT_UP_TO
from cache_builder.cli.app import app
from cache_builder.console.limits import DEFAULT_LOSE
from cache_builder.console.options import REQUIRED
from tests.cache_builder.conftest import settings_for

PROGRAM: Any = get_command(app)
FLAGS: list[Any] = PROGRAM.get_command(None, "build").params


def test_every_flag_is_a_setting_of_the_same_name() -> None:
    assert {flag.name for flag in FLAGS} == set(BuildSettings.model_fields)
    assert all(f"--{flag.name.replace('_', '-')}" in flag.opts for flag in FLAGS)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_defaults_agree(flag: Any) -> None:
    field = BuildSettings.model_fields[flag.name]
    assert (flag.help or "").endswith(REQUIRED) == field.is_required()
    if not field.is_required():
        assert flag.default in (field.default, str(field.default))


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_setting_is_explained(flag: Any) -> None:
    assert flag.help
    assert BuildSettings.model_fields[flag.name].description


@pytest.mark.parametrize(
    "change",
    [{"views": 0}, {"seed": -1}, {"seed": 2**64}, {"on_error": "ignore"}, {"mean": ("x",)}, {"nope": 1}],
    ids=str,
)
def test_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings_for(Path("a.zarr"), Path(), **change)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        settings_for(Path("a.zarr"), Path()).views = 3  # type: ignore[misc]


def test_the_two_ways_to_choose_a_record_stand_together_and_say_that_one_excludes_the_other() -> None:
    names = [flag.name for flag in FLAGS]
    assert names.index("bytes_per_view") == names.index("lose") + 1
    told = {flag.name: " ".join(flag.help.split()) for flag in FLAGS}
    assert f"Up to {EXACT_UP_TO} classes are stored one by one" in told["lose"]
    assert f"Default: {DEFAULT_LOSE}" in told["lose"]
    assert "Not together with --bytes-per-view" in told["lose"]
    assert "instead of --lose" in told["bytes_per_view"]
