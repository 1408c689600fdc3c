"""The data sets that a run reads and the views it draws itself, known while torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence

from cache_builder.datasets import ImageSource, LimitedSource, open_source
from cache_builder.datasets.pixels import NEWEST
from cache_builder.format import ConfigError
from cache_builder.format.frozen import Decoding
from cache_builder.views import Recipe, parse_recipe
from trainer.run.run_folder import RunFolder
from trainer.run.run_location import run_path
from trainer.run.settings import TrainSettings
from trainer.teacher.client import TeacherCache


def training_source(settings: TrainSettings, decoding: Decoding = NEWEST) -> ImageSource:
    """The data set that ``--data`` and ``--limit`` name; ``decoding``: how its files become pixels."""
    source = open_source(settings.data, decoding)
    return source if settings.limit is None else LimitedSource(source, settings.limit)


def decoding_for(settings: TrainSettings, caches: Sequence[TeacherCache]) -> Decoding:
    """That of the caches; without any that of the run which is continued, else the newest."""
    if caches:
        return caches[0].manifest.input.decoding
    stored = RunFolder(run_path(settings.out)).stored_config()
    return NEWEST if stored is None else stored.decoding


def check_views_asked(settings: TrainSettings) -> None:
    """Raise :class:`ConfigError` where ``--recipe`` and ``--views`` say too much or too little."""
    if not settings.cache:
        own_views(settings)
    elif settings.recipe or settings.views:
        raise ConfigError("--recipe and --views are the cache's: leave them out, or train without --cache")


def own_views(settings: TrainSettings) -> tuple[Recipe, int]:
    """The recipe of a run without a cache, and how many views it draws of each sample."""
    if settings.recipe is None:
        raise ConfigError("without --cache, say how images are augmented: --recipe pad-crop-flip or rrc-flip")
    recipe = parse_recipe(settings.recipe)
    views = settings.views or recipe.max_views() or settings.epochs
    if recipe.max_views() is not None and views > (recipe.max_views() or 0):
        raise ConfigError(f"recipe {settings.recipe!r} has {recipe.max_views()} view(s), not {views}")
    return recipe, views
