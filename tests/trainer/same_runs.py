"""Whether two runs ended alike, as their folders say."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file

_CLOCKS = ("epoch_s", "samples_per_s")


def differing(ours: Path, theirs: Path) -> list[str]:
    """What two runs do not share: weights bit for bit, their cards, the metrics without their clocks."""
    found = []
    for name in ("last.safetensors", "best.safetensors"):
        one, two = load_file(ours / name), load_file(theirs / name)
        found += [f"{name}: {key}" for key in one if one[key].tobytes() != two[key].tobytes()]
        if _card(ours / name) != _card(theirs / name):
            found.append(f"{name}: its card")
    if metrics(ours) != metrics(theirs):
        found.append("metrics.jsonl")
    return found


def _card(path: Path) -> object:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run without what a clock says."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in _CLOCKS} for row in rows]
