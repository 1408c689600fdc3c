"""Recorded augmentations: policies, and what is drawn of them by a counter-based generator.

:mod:`cache_builder.views.apply` renders what was drawn; it needs torch, which nothing here loads.
"""

from cache_builder.views.configuration import named, parse_recipe, read_recipe, recipe_from
from cache_builder.views.drawing import ViewParams, draw
from cache_builder.views.recipes import RECIPES, Augment, Recipe

__all__ = [
    "RECIPES",
    "Augment",
    "Recipe",
    "ViewParams",
    "draw",
    "named",
    "parse_recipe",
    "read_recipe",
    "recipe_from",
]
