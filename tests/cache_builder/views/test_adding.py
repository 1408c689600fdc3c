"""A recipe of one's own goes by ``package.module:Name``, on a command line and in a manifest."""

from __future__ import annotations

import pytest
import torch

from cache_builder.format.errors import ConfigError
from cache_builder.views import named, parse_recipe, recipe_from
from cache_builder.views.replay import Replay
from tests.cache_builder.toys import Corner, Stripes

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
