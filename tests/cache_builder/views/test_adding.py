"""A recipe of one's own goes by ``package.module:Name``, on a command line and in a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cache_builder.datasets import check_recorded
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from cache_builder.views import named, parse_recipe, recipe_from
from cache_builder.views.replay import Replay
from tests.cache_builder.toys import Corner, Stripes

_CORNER = "from tests.cache_builder.toys import Corner\n"
OWN = "tests.cache_builder.toys:Corner"


def test_it_is_written_and_found_again() -> None:
    assert parse_recipe(OWN) == Corner()
    recipe = parse_recipe(f"{OWN}:side=0.25")
    assert recipe == Corner(side=0.25)
    stored = named(recipe)
    assert (stored.name, stored.configuration) == (OWN, {"side": 0.25})
    assert recipe_from(stored) == recipe


def test_it_is_rendered() -> None:
    source = Stripes()
    replay = Replay(parse_recipe(OWN), 0, 1, len(source), 8, "nearest")
    (seen,) = replay.batch([(4, 0)], lambda row: source.read(row).value)
    assert seen.image is not None
    assert torch.equal(seen.image, source.read(4).value[:, :8, :8])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tests.cache_builder.toys:Stripes", "no subclass of cache_builder.views.Recipe"),
        ("tests.cache_builder.toys:Middle", "has no attribute 'Middle'"),
        ("no_such_module:Corner", "recipe 'no_such_module:Corner': No module named 'no_such_module'"),
        (f"{OWN}:sied=1", "its parameters are side"),
    ],
)
def test_what_is_wrong_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_recipe(text)


def test_code_that_a_cache_names_is_imported_only_if_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_recipe.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n{_CORNER}")
    monkeypatch.syspath_prepend(tmp_path)
    stored = NamedConfiguration(name="hostile_recipe:Corner", configuration={})
    with pytest.raises(ConfigError, match="KDCACHE_TRUSTED_CODE=hostile_recipe:Corner"):
        recipe_from(stored)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("KDCACHE_TRUSTED_CODE", "others:X,hostile_recipe:Corner")
    assert recipe_from(stored) == Corner()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("spec", ["os:system:touch ran", "tests.cache_builder.toys:Stripes", "os:getcwd"])
def test_a_data_set_that_a_cache_names_is_not_called(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"not run; .* --data {spec}"):
        check_recorded(spec)


@pytest.mark.parametrize("spec", ["imagefolder:/data", "digits?classes=a", "nonsense", "no_such:thing"])
def test_other_names_are_left_to_opening(spec: str) -> None:
    check_recorded(spec)
