"""Beside remote stores processes are spawned, and everything that loaders send them can be sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from cache_builder.build.rendering import RenderTask, ViewRenderer, render_batches
from cache_builder.datasets import open_source
from cache_builder.format.starting import start_method
from cache_builder.format.store import open_store
from cache_builder.views.replay import Replay
from tests.caches import synthetic_manifest

def main():
    assert start_method(2) is None
    open_store("s3://bucket/c.zarr", read_only=True)
    assert (start_method(0), start_method(2)) == (None, "spawn")
    renderer = ViewRenderer(open_source("digits:train"), Replay.of(synthetic_manifest()))
    here, there = (list(render_batches(renderer, [[RenderTask(3, 0, 2)]], n, False)) for n in (0, 1))
    assert here[0].images.equal(there[0].images)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow  # torch is imported three times
def test_loader_processes_are_spawned_beside_remote_stores(tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SCRIPT)
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
