"""The calibration's rate-distortion table for people: a few of its rows as text, all of them as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from cache_builder.calibration.fidelity import TEMPERATURES
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, RatePoint

_COLUMNS = ("", "bytes/view", "K", "rank", "step", "value step", "TV T=1", "TV T=4", "gradient cosine", "rms")
_MOST_ROWS = 14


def frontier(section: CalibrationSection) -> list[int]:
    """Rows that no smaller row is as faithful as, by rising bytes; the chosen one is always there."""
    found: list[int] = []
    best = -1.0
    order = sorted(range(len(section.table)), key=lambda index: section.table[index].bytes_per_view)
    for index in order:
        if section.table[index].gradient_cosine > best or index == section.chosen:
            found.append(index)
            best = max(best, section.table[index].gradient_cosine)
    return found


def rate_table(section: CalibrationSection) -> Table:
    """The frontier as a table, thinned to a screen; the chosen row is marked."""
    rows = frontier(section)
    step = -(-len(rows) // _MOST_ROWS)
    kept = {*rows[::step], rows[-1], section.chosen}
    table = Table(*_COLUMNS, box=None, pad_edge=False, title_justify="left")
    for index in rows:
        if index in kept:
            chosen = index == section.chosen
            table.add_row(*_cells(section.table[index], chosen), style="bold" if chosen else None)
    return table


def _cells(point: RatePoint, chosen: bool) -> list[str]:
    return [
        "*" if chosen else "",
        f"{point.bytes_per_view:.1f}",
        str(point.top_k),
        str(point.tail_rank),
        f"{point.tail_step:g}",
        f"{point.value_step:g}",
        f"{point.tv[0]:.4f}",
        f"{point.tv[2]:.4f}",
        f"{point.gradient_cosine:.5f}",
        f"{point.logit_error:.3f}",
    ]


def plot(section: CalibrationSection, name: str, path: Path) -> None:
    """All rows as a PNG: lost gradient and total variation over bytes.

    Raises :class:`ConfigError` for a cache that chose nothing, and where matplotlib is missing.
    """
    if not section.table:
        raise ConfigError(
            f"cache {name!r} has no rate-distortion table: it stores every class, or is of version 1"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("the picture needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    edge = [section.table[index] for index in frontier(section)]
    for top_k in sorted({point.top_k for point in section.table}):
        points = [point for point in section.table if point.top_k == top_k]
        left.plot(_sizes(points), _lost(points), "o", label=f"K = {top_k}")
    left.plot(_sizes(edge), _lost(edge), "k-", lw=0.8)
    for index, temperature in enumerate(TEMPERATURES):
        right.plot(_sizes(edge), [p.tv[index] for p in edge], ".-", label=f"T = {temperature:g}")
    for axis, what in ((left, "1 - gradient cosine"), (right, "total variation of the softmax")):
        axis.set(yscale="log", xlabel="bytes per view on disk", ylabel=what)
        if section.chosen is not None:
            axis.axvline(section.table[section.chosen].bytes_per_view, color="grey", ls=":", label="chosen")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    figure.suptitle(f"{name}: what a byte buys, on logits that fitted nothing")
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {path}: {error}") from error


def _sizes(points: list[RatePoint]) -> list[float]:
    return [point.bytes_per_view for point in points]


def _lost(points: list[RatePoint]) -> list[float]:
    # A logarithmic axis has no place for nothing.
    return [max(1 - point.gradient_cosine, 1e-7) for point in points]
