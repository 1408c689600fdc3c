"""The ``kdcache`` command line."""

from cache_builder.cli.app import main

__all__ = ["main"]
