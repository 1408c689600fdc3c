"""Who may import whom: the server and the format work where torch is not installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "accelerate", "sklearn")


def loaded_by(statement: str) -> set[str]:
    """The modules of ``HEAVY`` that a fresh interpreter holds after a statement."""
    probe = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import cache_builder.format",
        "from cache_builder.format import reader, writer, codec",
        "import logit_server.app",
        "import logit_server.run",
        "import logit_server.__main__",
        "import cache_builder.cli.app",
        "import trainer.cli.app",
        "import kdcache; kdcache.commands()",
        "import cache_builder.views.recipes",
    ],
)
def test_no_torch_where_none_is_needed(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_the_probe_itself_notices_torch() -> None:
    assert "torch" in loaded_by("import cache_builder.tensors.encode")


@pytest.mark.parametrize("package", ["cache_builder"])
def test_a_package_that_the_format_lives_in_holds_a_docstring_only(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert ast.get_docstring(ast.Module(body, [])) is not None


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_every_test_folder_is_a_package() -> None:
    """Without ``__init__.py``, ``import trainer`` in a test could find ``tests/trainer``."""
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_format_module_has_its_tests() -> None:
    modules = {file.stem for file in (ROOT / "cache_builder" / "format").glob("[!_]*.py")}
    tests = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "format").glob("test_*.py")}
    assert modules - tests == set()
