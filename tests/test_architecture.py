"""Who may import whom: the server and the format work where torch is not installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cache_builder", "logit_server", "trainer")
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
        "from cache_builder.format import codecs, reader, writer",
        "import logit_server.app",
        "import logit_server.run",
        "import logit_server.__main__",
        "import cache_builder.cli.app",
        "import trainer.cli.app",
        "import trainer.run.inputs",
        "import trainer.run.evaluation_inputs",
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


def our_modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def imports_of(file: Path, modules: set[str]) -> set[str]:
    """Which of the modules a file imports: at its head, in a function, or for its types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                found |= {part if part in modules else node.module} & modules
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which leads to every other: strongly connected parts of more than one."""

    def reached(start: str, edges: dict[str, set[str]]) -> set[str]:
        seen, todo = {start}, [start]
        while todo:
            new = edges.get(todo.pop(), set()) - seen
            seen |= new
            todo.extend(new)
        return seen

    back: dict[str, set[str]] = {}
    for module, targets in graph.items():
        for target in targets:
            back.setdefault(target, set()).add(module)
    found, left = [], set(graph)
    while left:
        module = min(left)
        circle = reached(module, graph) & reached(module, back)
        left -= circle
        if len(circle) > 1:
            found.append(sorted(circle))
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = our_modules()
    graph = {name: imports_of(file, set(modules)) - {name} for name, file in modules.items()}
    assert len(graph) > 200
    assert circles(graph) == []


def test_the_search_notices_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
