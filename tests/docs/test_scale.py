"""The tables of docs/scale.md and docs/operating.md are those of scripts, and what they point at exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.report import RESULTS, markdown_table

DOCS = Path(__file__).parents[2] / "docs"
SCALE, OPERATING = ((DOCS / name).read_text() for name in ("scale.md", "operating.md"))
FIGURES = dict(
    re.findall(r"<!-- figures:(\w+) -->\n(.*?)\n?<!-- /figures -->", SCALE + OPERATING, flags=re.DOTALL)
)


def test_every_table_is_shown() -> None:
    written = {path.stem for path in RESULTS.glob("capacity*.json")} | {
        "fleet_builds",
        "image_size",
        "rows_memory",
    }
    assert set(FIGURES) == written


@pytest.mark.parametrize("name", FIGURES)
def test_a_table_is_what_its_script_printed(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    assert FIGURES[name] == markdown_table(result["columns"], result["rows"])


def test_what_it_points_at_exists() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", SCALE + OPERATING):
        assert (DOCS / link).exists(), link
    for script in re.findall(r"`(benchmarks/[\w/.]+)`", SCALE):
        assert (DOCS.parent / script).exists(), script
    for module in re.findall(r"python -m (benchmarks\.\w+)", SCALE):
        assert (DOCS.parent / f"{module.replace('.', '/')}.py").exists(), module
    for module in re.findall(r"`((?:format|build|logit_server|trainer)/[\w/]+\.py)`", SCALE):
        assert any((DOCS.parent / folder / module).exists() for folder in ("", "cache_builder")), module
