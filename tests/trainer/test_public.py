"""What people with their own loop import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trainer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", trainer.__all__)
def test_public_names_are_there_and_documented(name):
    assert name in dir(trainer)
    assert getattr(trainer, name).__doc__


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Teacher'"):
        trainer.Teacher  # noqa: B018


@pytest.mark.parametrize("statement", ["import trainer", "import trainer.cli.app"])
def test_importing_them_loads_nothing_heavy(statement):
    probe = f"import sys; {statement}; print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
