"""The ``kdtrain`` command line."""

from trainer.cli.app import main

__all__ = ["main"]
