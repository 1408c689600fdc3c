import subprocess
import sys

import pytest

from logit_server.__main__ import main
from logit_server.settings import Settings
from tests.logit_server.processes import ROOT


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"KDCACHE_{name.upper()}" in shown
        assert field.description


def test_an_argument_is_refused_with_the_command_that_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/data/vit_l.zarr"]) == 2
    assert "kdcache serve" in capsys.readouterr().err


def test_the_module_runs_as_a_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "logit_server", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "KDCACHE_CACHES" in ran.stdout
