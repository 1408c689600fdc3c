"""Recipes as people write them."""

from __future__ import annotations


def check_recipe(text: str) -> None:
    """Raise :class:`ConfigError` for a recipe that cannot be read."""
    # Imported where it is needed: the help of both programs does without.
    from cache_builder.views import parse_recipe

    parse_recipe(text)
