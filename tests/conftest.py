"""Shapes and types of the losses are checked while the tests run, by jaxtyping with beartype."""

from jaxtyping import install_import_hook

from tests.trainer.typecheck import check

# Before anything imports trainer.losses, as tests of the builder do too: this is loaded before every test.
install_import_hook("trainer.losses", f"{check.__module__}.{check.__name__}")
