"""Recorded augmentations: drawn from a counter-based generator, applied by torchvision."""

from cache_builder.views.apply import apply, normalise, render
from cache_builder.views.recipes import RECIPES, Recipe, ViewParams, draw, named, parse_recipe, recipe_from

__all__ = [
    "RECIPES",
    "Recipe",
    "ViewParams",
    "apply",
    "draw",
    "named",
    "normalise",
    "parse_recipe",
    "recipe_from",
    "render",
]
