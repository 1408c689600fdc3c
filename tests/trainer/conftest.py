"""Shapes and types of the losses are checked while the tests run, by jaxtyping with beartype."""

from jaxtyping import install_import_hook

from tests.trainer.typecheck import check

# Before anything imports trainer.losses; a conftest is loaded before the test modules beside it.
install_import_hook("trainer.losses", f"{check.__module__}.{check.__name__}")
