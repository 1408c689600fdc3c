"""How a benchmark reports: one table, printed and kept as Markdown and JSON with hardware and date."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numpy", "zarr", "uvicorn", "fastapi", "torch")


def hardware() -> dict[str, str]:
    """What the figures were measured on: processor, usable cores, memory, accelerator, Python, libraries."""
    found = {
        "cpu": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "accelerator": _accelerator(),
        "python": platform.python_version(),
    }
    return found | {name: version for name in _LIBRARIES if (version := _version(name))}


def hardware_line() -> str:
    """:func:`hardware` as one line of prose."""
    return ", ".join(f"{key} {value}" for key, value in hardware().items())


def write_results(
    name: str, title: str, columns: list[str], rows: Sequence[Sequence[object]], notes: str
) -> None:
    """Print the table and write ``benchmarks/results/<name>.md`` and ``.json``.

    Floats are shown with three significant digits in the table and kept whole in the JSON.
    """
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = markdown_table(columns, rows)
    print(f"{table}\n")
    RESULTS.mkdir(exist_ok=True)
    text = f"# {title}\n\n{date}, {hardware_line()}\n\n{table}\n\n{notes.strip()}\n"
    (RESULTS / f"{name}.md").write_text(text)
    record = {"title": title, "date": date, "hardware": hardware(), "columns": columns, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(record | {"notes": notes.strip()}, indent=1) + "\n")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns line up in plain text too."""
    cells = [list(columns), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in cells]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def alternate(candidates: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure the candidates in turn, ``rounds`` times, the order reversed every other round.

    A machine that slows down while it measures then slows all of them alike.
    """
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(rounds):
        for name in list(candidates)[:: 1 if index % 2 == 0 else -1]:
            measured[name].append(candidates[name]())
    return measured


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _accelerator() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return ", ".join(asked.stdout.split("\n")).strip(", ") or "none"


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
