"""The build that README quotes writes a whole cache, in silence, and recognises one that is there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import kdcache

EXAMPLE = Path(__file__).parents[2] / "examples" / "build_from_python.py"


def test_it_builds_and_reads_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.zarr"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "trainer.students:cnn3", "digits:test", str(out)])
    first = runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capfd.readouterr()
    assert said.err == ""
    assert [line.split()[0] for line in said.out.splitlines()[:2]] == ["teacher", "1197"]
    cache = kdcache.open_cache(out)
    assert cache.manifest.cache_id == first["result"].manifest.cache_id is not None
    assert cache.manifest.views.count == 2
    again = runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert again["result"].was_finished
