from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cache_builder.console.dotted import failure, import_dotted, is_dotted
from cache_builder.format.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.parametrize("text", ["a:b", "a.b.c:D", "a:B.c"])
def test_what_is_dotted(text: str) -> None:
    assert is_dotted(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a:/data", ".a:b", "a b:c", "https://host", "a:b:c"])
def test_what_is_not(text: str) -> None:
    assert not is_dotted(text)


def test_a_name_and_one_within_it() -> None:
    assert import_dotted("pathlib:Path", "toy") is Path
    assert import_dotted("pathlib:Path.home", "toy") == Path.home


def test_something_in_the_working_directory(folder: Path) -> None:
    (folder / "my_own.py").write_text("THING = 3\n")
    assert import_dotted("my_own:THING", "toy") == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no.such:F",
            r"toy 'no\.such:F': No module named 'no'; expected package\.module:Name, installed or in the ",
        ),
        ("pathlib.deeper:F", r"No module named 'pathlib\.deeper'"),
        ("pathlib:Nothing", "toy 'pathlib:Nothing': pathlib has no attribute 'Nothing'"),
        ("pathlib:", r"toy 'pathlib:': expected package\.module:Name"),
        (":F", r"expected package\.module:Name"),
        (".pathlib:F", r"expected package\.module:Name"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_dotted(name, "toy")


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
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*my_losses\.py, line 2\)"),
    ],
)
def test_the_failing_line_is_the_users(folder: Path, text: str, message: str) -> None:
    """Also where what fails is deep inside a library that the line calls."""
    (folder / "my_losses.py").write_text(text)
    with pytest.raises(ConfigError, match=rf"'my_losses:F': importing my_losses failed: {message}"):
        import_dotted("my_losses:F", "loss")


def test_of_a_package_the_innermost_module_is_named(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").write_text("")
    (folder / "mine" / "parts.py").write_text("\nraise RuntimeError('no data here')\n")
    (folder / "mine" / "losses.py").write_text("from mine import parts\n")
    with pytest.raises(ConfigError, match=r"no data here \(.*parts\.py, line 2\)"):
        import_dotted("mine.losses:F", "loss")


def test_an_error_that_was_never_raised_has_no_line() -> None:
    assert failure(ValueError("what")) == "ValueError: what"
