"""The calibration's rate-distortion table for people: a few of its rows as text."""

from __future__ import annotations

from rich.table import Table

from cache_builder.console.fidelity import frontier
from cache_builder.format.manifest import CalibrationSection, RatePoint

_COLUMNS = ("", "bytes/view", "lost", "kd T=1", "kd T=4", "worst loss", "TV T=1", "TV T=4")
_MOST_ROWS = 14
_UNKNOWN = "-"


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
    at_1, at_4 = (None, None) if point.kd_cosines is None else point.kd_cosines
    return [
        "*" if chosen else "",
        f"{point.bytes_per_view:.1f}",
        _UNKNOWN if point.lost is None else f"{100 * point.lost:.3g} %",
        *(_UNKNOWN if cosine is None else f"{cosine:.4f}" for cosine in (at_1, at_4)),
        f"{point.gradient_cosine:.4f}",
        f"{point.tv[0]:.4f}",
        f"{point.tv[2]:.4f}",
    ]
