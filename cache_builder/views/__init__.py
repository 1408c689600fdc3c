"""Recorded augmentations: drawn from a counter-based generator, applied by torchvision."""

from cache_builder.views.apply import Rendered, apply, apply_unmixed, normalise, render, render_views
from cache_builder.views.configuration import named, parse_recipe, read_recipe, recipe_from
from cache_builder.views.drawing import ViewParams, draw
from cache_builder.views.recipes import RECIPES, Augment, Recipe
from cache_builder.views.replay import Replay

__all__ = [
    "RECIPES",
    "Augment",
    "Recipe",
    "Rendered",
    "Replay",
    "ViewParams",
    "apply",
    "apply_unmixed",
    "draw",
    "named",
    "normalise",
    "parse_recipe",
    "read_recipe",
    "recipe_from",
    "render",
    "render_views",
]
