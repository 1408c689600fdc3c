"""Shapes and types of the losses are checked while the tests run, by jaxtyping with beartype."""

import os

import torch
from jaxtyping import install_import_hook

from tests.trainer.typecheck import check

# Before anything imports trainer.losses; a conftest is loaded before the test modules beside it.
install_import_hook("trainer.losses", f"{check.__module__}.{check.__name__}")

# Networks this small gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that tests start
