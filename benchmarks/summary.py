"""The README's table of figures, from the last results of the other benchmarks (run it after them)."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.report import RESULTS, write_results

# Result, what its row must hold, the column shown, what it is, the target.
FIGURES: list[tuple[str, dict[str, object], str, str, str]] = [
    ("build", {}, "ratio", "build, against a bare forward loop over the same loader", "at most 1.03"),
    (
        "server",
        {"client": "httpx2", "rows per request": 256},
        "ratio",
        "server, 256 rows a request, against a bare ASGI application",
        "at least 0.8",
    ),
    (
        "server",
        {"client": "httpx2", "rows per request": 4096},
        "ratio",
        "server, 4,096 rows a request, likewise",
        "at least 0.8",
    ),
    (
        "server",
        {"client": "httpx2", "rows per request": 256},
        "kdcache samples/s",
        "server, 256 rows a request, samples/s through one connection",
        "",
    ),
    ("pages", {"step": "decoded (Cache.read_page)"}, "rows/s", "store to page, rows/s", ""),
    (
        "train_step",
        {"objective": "kd"},
        "ratio",
        "training step with kd, against hard labels",
        "at most 1.02",
    ),
    (
        "train_step",
        {"objective": "dkd"},
        "ratio",
        "training step with dkd, against hard labels",
        "at most 1.02",
    ),
]


def main() -> None:
    """Collect and write ``results/summary``."""
    rows = []
    for name, wanted, column, what, target in FIGURES:
        result = json.loads((RESULTS / f"{name}.json").read_text())
        rows.append([what, figure(result, wanted, column), target, f"benchmarks/{name}.py", result["date"]])
    hardware = json.loads((RESULTS / "server.json").read_text())["hardware"]
    notes = (
        f"Measured on {hardware['cpu']}, {hardware['cores']} cores, accelerator: {hardware['accelerator']}."
    )
    columns = ["what", "measured", "target", "script", "date"]
    write_results("summary", "The figures in one table", columns, rows, notes)


def figure(result: dict[str, Any], wanted: dict[str, object], column: str) -> object:
    """The value of ``column`` in the first row whose columns hold the ``wanted`` values."""
    for row in result["rows"]:
        named = dict(zip(result["columns"], row, strict=True))
        if all(named[key] == value for key, value in wanted.items()):
            return named[column]
    raise KeyError(f"{result['title']}: no row with {wanted}")


if __name__ == "__main__":
    main()
