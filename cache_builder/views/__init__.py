"""Recorded augmentations: drawn from a counter-based generator, applied by torchvision.

What applies them is imported when it is first asked for: it brings torch, for which a look at a recipe should
not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache_builder.views.configuration import named, parse_recipe, read_recipe, recipe_from
from cache_builder.views.drawing import ViewParams, draw
from cache_builder.views.recipes import RECIPES, Augment, Recipe

if TYPE_CHECKING:
    from cache_builder.views.applying import Rendered, apply, apply_unmixed, normalise, render, render_views

__all__ = [
    "RECIPES",
    "Augment",
    "Recipe",
    "Rendered",
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

_APPLYING = frozenset(("Rendered", "apply", "apply_unmixed", "normalise", "render", "render_views"))


def __getattr__(name: str) -> Any:
    if name not in _APPLYING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("cache_builder.views.applying"), name)
