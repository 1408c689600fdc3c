from __future__ import annotations

from pathlib import Path

import pytest

from cache_builder.console.dotted import import_dotted, is_dotted
from cache_builder.format.errors import ConfigError


@pytest.mark.parametrize("text", ["a:b", "a.b.c:D", "a:B.c"])
def test_what_is_dotted(text: str) -> None:
    assert is_dotted(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a:/data", ".a:b", "a b:c", "https://host", "a:b:c"])
def test_what_is_not(text: str) -> None:
    assert not is_dotted(text)


def test_a_name_and_one_within_it() -> None:
    assert import_dotted("pathlib:Path", "toy") is Path
    assert import_dotted("pathlib:Path.home", "toy") == Path.home


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = 1\ny = x / 0\n", r"failed: ZeroDivisionError: .*broken_toy\.py, line 2\)"),
        ("x = 1\nimport no_such_thing\n", r"failed: ModuleNotFoundError: .*broken_toy\.py, line 2\)"),
        ("x = 1\ndef y(:\n", r"failed: SyntaxError: .*\(broken_toy\.py, line 2\)"),
        ("import sys\nsys.exit(3)\n", r"failed: SystemExit: 3 \(.*broken_toy\.py, line 2\)"),
        ("x = 1\n", "toy 'broken_toy:Thing': broken_toy has no attribute 'Thing'"),
    ],
)
def test_the_failing_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "broken_toy", raising=False)
    (tmp_path / "broken_toy.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=said):
        import_dotted("broken_toy:Thing", "toy")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"toy 'no\.such:f': No module named 'no'; expected package"):
        import_dotted("no.such:f", "toy")
