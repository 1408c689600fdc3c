"""How the code hangs together, counted in a tree: what knows codecs, circles of modules, body lengths.

``python -m benchmarks structure`` counts in this tree; ``python -m benchmarks.structure BEFORE AFTER`` writes
``benchmarks/results/structure.md`` of two trees, such as a worktree of an older commit and this one.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("cache_builder", "logit_server", "trainer")
RESULT = Path("benchmarks/results/structure.md")
# The classes that said, or say, which codec it is.
_CODEC_TEST = re.compile(r"isinstance\([^()]*(?:Codec|Sketch|TopkTail)\w*\)")
_FIELDS = re.compile(r"\b(?:topk_(?:max|span|index|value|residual)|tail_coef(?:_wide|_packed)?|lse_above)\b")
# Where a codec's own names belong: its file, and its twin in torch; also where these were in 2026-11.
_CODECS = (
    "cache_builder/format/codecs/",
    "cache_builder/format/topk_tail.py",
    "cache_builder/format/class_sketch.py",
)
_TWINS = ("cache_builder/tensors/", "cache_builder/encode.py", "trainer/decode.py")


def sources(root: Path) -> dict[str, str]:
    """The text of every module of the packages, by its path below the root."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


def outside(homes: tuple[str, ...], texts: dict[str, str], pattern: re.Pattern[str]) -> tuple[int, int]:
    """Matches outside of some paths, and the number of files that have one."""
    counts = [len(pattern.findall(text)) for path, text in texts.items() if not path.startswith(homes)]
    return sum(counts), sum(count > 0 for count in counts)


def circles(texts: dict[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, also lazily; imports for types alone do not count."""
    names = {module_name(path): path for path in texts}
    graph = {name: set(imported(ast.parse(texts[path]), names)) - {name} for name, path in names.items()}
    return sorted(group for group in components(graph) if len(group) > 1)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """The modules of ours that a module imports: of ``from a import b`` the module a.b where there is one."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found = inner if inner in names else node.module
                if found in names:
                    yield found


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from walk(node)


def components(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Strongly connected components: modules that reach each other."""
    reach = {name: reached(name, graph) for name in graph}
    seen: set[str] = set()
    for name in sorted(graph):
        if name not in seen:
            group = sorted({name, *(other for other in reach[name] if name in reach[other])})
            seen.update(group)
            yield group


def reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        for name in graph[todo.pop()] - found:
            found.add(name)
            todo.append(name)
    return found


def body_lines(texts: dict[str, str]) -> dict[str, list[int]]:
    """Lines of every function's body without its docstring, by package."""
    lengths: dict[str, list[int]] = {package: [] for package in PACKAGES}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                if body:
                    lengths[path.split("/")[0]].append((body[-1].end_lineno or 0) - body[0].lineno + 1)
    return lengths


def counted(root: Path) -> dict[str, str]:
    """What is counted in a tree, by what it is called."""
    texts = sources(root)
    tests, test_files = outside(_CODECS, texts, _CODEC_TEST)
    fields, field_files = outside(_CODECS + _TWINS, texts, _FIELDS)
    longest = max(texts, key=lambda path: texts[path].count("\n"))
    found = {
        "`isinstance` on a codec outside codecs": f"{tests} in {test_files} files",
        "field names of a codec outside codecs and twins": f"{fields} in {field_files} files",
        "circles of modules": f"{len(circles(texts))}",
        "modules": f"{len(texts)}",
        "longest module, lines": f"{texts[longest].count(chr(10))} ({longest})",
    }
    for package, lengths in body_lines(texts).items():
        deciles = statistics.quantiles(lengths, n=10)
        found[f"{package}: body lines, median / 90 % / longest"] = (
            f"{statistics.median(lengths):g} / {deciles[-1]:g} / {max(lengths)}"
        )
    return found


def main(before: str | None = None, after: str = ".") -> None:
    now = counted(Path(after))
    for name, value in now.items():
        print(f"{name}: {value}")
    for group in circles(sources(Path(after))):
        print("circle:", " <-> ".join(group))
    if before is not None:
        then = counted(Path(before))
        rows = [f"| {name} | {then[name]} | {value} |" for name, value in now.items()]
        head = [
            "# How the code hangs together",
            "",
            "`python -m benchmarks.structure BEFORE AFTER`: counts, which depend on no machine.",
            "",
        ]
        RESULT.write_text("\n".join([*head, "| | before | after |", "|---|---|---|", *rows]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
