"""Recorded augmentations: policies, and what is drawn of them by a counter-based generator.

:mod:`cache_builder.views.apply` renders what was drawn. It needs torch, which is loaded when one of its names
is used: programs of users import ``render_views`` and ``normalise`` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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

_WITH_TORCH = {
    "Rendered": "cache_builder.views.apply",
    "normalise": "cache_builder.tensors.normalise",
    "render": "cache_builder.views.apply",
    "render_views": "cache_builder.views.apply",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WITH_TORCH[name]), name)
