"""Shapes and types of the losses are checked while the tests run, by jaxtyping with beartype."""

import os
import signal

import pytest
from jaxtyping import install_import_hook

from cache_builder.format import starting
from tests.trainer.typecheck import check

# Before anything imports trainer.losses, as tests of the builder do too: this is loaded before every test.
install_import_hook("trainer.losses", f"{check.__module__}.{check.__name__}")

# A store that stays away is waited for, but no test does so for a minute.
os.environ.setdefault("KDCACHE_STORE_PATIENCE_S", "1")

# Stores that tests count requests to, or spoil, are asked; tests of the block cache name a folder.
os.environ.setdefault("KDCACHE_BLOCK_CACHE", "off")

# A job that a shell put into the background ignores Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_store_is_open() -> None:
    """Stores that another test opened are no reason to spawn loader processes, which is slow."""
    starting._remote_is_open.clear()


SLOW_LIMIT_S = 1800
"""How long one slow test may take; `timeout` in pyproject.toml is that of the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests get a limit of their own, unless they state one."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT_S))
