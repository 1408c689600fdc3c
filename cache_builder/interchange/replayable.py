"""May the views of an imported cache be replayed? Only where it is known how they were drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration, ViewsSection
from cache_builder.interchange.matching import Matched
from cache_builder.views import named, parse_recipe
from cache_builder.views.configuration import UNKNOWN_VIEWS

if TYPE_CHECKING:
    from cache_builder.interchange.settings import ImportSettings


def imported_views(count: int, own_views: bool, settings: ImportSettings, matched: Matched) -> ViewsSection:
    """The manifest's section. Without ``--recipe`` the views are unknown and a trainer refuses the cache.

    Raises :class:`ConfigError` for a recipe that cannot be true, and unless all that a replay needs was said.
    """
    if settings.recipe is None:
        if settings.seed is not None:
            raise ConfigError("--seed says with which seed kdcache drew the views: add the --recipe")
        recipe = NamedConfiguration(name=UNKNOWN_VIEWS, configuration={"format": settings.form})
        return ViewsSection(count=count, recipe=recipe, seed=0)
    if own_views:
        raise ConfigError(
            f"--recipe {settings.recipe}: the views of a {settings.form} dump were drawn by its own program, "
            "and no recipe of kdcache draws them: leave --recipe out; the cache can then be looked at, "
            "exported and served, but no trainer replays it"
        )
    chosen = parse_recipe(settings.recipe)
    _check_replay(count, chosen.max_views(), settings, matched)
    return ViewsSection(count=count, recipe=named(chosen), seed=settings.seed or 0)


def _check_replay(count: int, most: int | None, settings: ImportSettings, matched: Matched) -> None:
    """Everything that a trainer would rely on must have been said."""
    if most is not None and count > most:
        raise ConfigError(
            f"--recipe {settings.recipe} draws {most} view, the dump has {count}: they cannot all be of it"
        )
    if most is None and settings.seed is None:
        raise ConfigError(
            f"--recipe {settings.recipe} draws its views at random: they can be replayed only if kdcache "
            "itself drew them (cache_builder.views.draw, by row of the dump); if so, say with which --seed"
        )
    missing = [
        flag
        for flag, value in (("--data", matched.source), ("--input-size", settings.input_size))
        if value is None
    ]
    if missing:
        raise ConfigError(
            f"--recipe {settings.recipe} lets trainers replay the views, for which {' and '.join(missing)} "
            "must be known: the data set, to check its ids and to keep digests and rendered pictures; the "
            "size in pixels that the teacher saw"
        )
