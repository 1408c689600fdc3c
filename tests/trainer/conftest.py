"""Shapes and types of the losses are checked while the tests run, by jaxtyping with beartype."""

from jaxtyping import install_import_hook

# Before anything imports trainer.losses; a conftest is loaded before the test modules beside it.
install_import_hook("trainer.losses", "tests.trainer.typecheck.check")
