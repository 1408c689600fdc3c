from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cache_builder.console.dotted import failure, import_dotted
from cache_builder.format.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_something_of_an_installed_module():
    assert import_dotted("pathlib:Path") is Path


def test_something_beside_the_working_directory(folder):
    (folder / "my_own.py").write_text("THING = 3\n")
    assert import_dotted("my_own:THING") == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such:F", r"No module named 'no'; expected package\.module:Name, installed or in the working"),
        ("pathlib.deeper:F", r"No module named 'pathlib\.deeper'"),
        ("pathlib:Nothing", "pathlib has no attribute 'Nothing'"),
        ("pathlib:", "is incomplete"),
        (":F", "is incomplete"),
        (".pathlib:F", "is incomplete"),
    ],
)
def test_what_is_not_there_is_named(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        import_dotted(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*my_losses\.py, line 2\)"),
        ("def f(:\n", r"SyntaxError: .* \(.*my_losses\.py, line 1\)"),
        (
            "\n\nimport no_such_lib\n",
            r"ModuleNotFoundError: .* 'no_such_lib' \(.*my_losses\.py, line 3\)",
        ),
        ("import json\njson.loads('{')\n", r"JSONDecodeError.*my_losses\.py, line 2\)"),
    ],
)
def test_the_failing_line_is_the_users(folder, text, message):
    """Also where what fails is deep inside a library that the line calls."""
    (folder / "my_losses.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"'my_losses:F': importing my_losses failed: {message}"):
        import_dotted("my_losses:F")


def test_of_a_package_the_innermost_module_is_named(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("")
    (folder / "mine" / "parts.py").write_text("\nraise RuntimeError('no data here')\n")
    (folder / "mine" / "losses.py").write_text("from mine import parts\n")
    with pytest.raises(ConfigError, match=r"no data here \(.*parts\.py, line 2\)"):
        import_dotted("mine.losses:F")


def test_an_error_that_was_never_raised_has_no_line():
    assert failure(ValueError("what")) == "ValueError: what"
