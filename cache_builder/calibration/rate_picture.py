"""The calibration's rate-distortion table as a picture: what is lost and what losses see, by bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cache_builder.calibration.fidelity import TEMPERATURES
from cache_builder.console.fidelity import frontier
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import CalibrationSection, RatePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A logarithmic axis has no place for nothing, and nobody can tell less than this: it is drawn here.
_SMALLEST = 1e-5
# What a gradient may lack before a loss sees a blurred teacher.
_BLURRED = 0.05
_TICKS = (1, 1.5, 2, 3, 5, 7)
_WORST = "the worst of a few losses"


class _Line(NamedTuple):
    """One measure of the rows."""

    label: str
    of: Callable[[RatePoint], float]


class _Panel(NamedTuple):
    """What is drawn on a pair of axes."""

    title: str
    y_axis: str
    lines: Sequence[_Line]
    limit: float | None = None
    """Where a line says that what lies above is bad."""


def plot(section: CalibrationSection, name: str, path: Path) -> None:
    """All rows as a PNG; the smallest that reach each quality are joined, the cache's own is marked.

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
    panels = list(_panels(section))
    figure = Figure(figsize=(5.2 * len(panels), 5.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel, section)
    figure.suptitle(f"{name}: what a byte buys, as calibration measured it (lower is better)")
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {path}: {error}") from error


def _panels(section: CalibrationSection) -> Iterator[_Panel]:
    """Tables of earlier releases lack what is lost and the gradients of kd."""
    if all(point.lost is not None for point in section.table):
        lost = [_Line("lost", lambda point: point.lost or 0.0)]
        yield _Panel("what is lost", "share of the logits' variance that is lost", lost)
    yield _Panel("what losses see", "1 - gradient cosine (0: as live)", _gradients(section), _BLURRED)
    distances = [
        _Line(f"T = {temperature:g}", lambda point, index=index: point.tv[index])  # type: ignore[misc]
        for index, temperature in enumerate(TEMPERATURES)
    ]
    yield _Panel("how far softmax(logits / T) is off", "total variation (1: nothing alike)", distances)


def _gradients(section: CalibrationSection) -> list[_Line]:
    worst = _Line(_WORST, lambda point: 1 - point.gradient_cosine)
    if any(point.kd_cosines is None for point in section.table):
        return [worst]
    of_kd = [
        _Line(f"kd at T = {temperature}", lambda point, index=index: 1 - (point.kd_cosines or (1, 1))[index])  # type: ignore[misc]
        for index, temperature in enumerate((1, 4))
    ]
    return [*of_kd, worst]


def _draw(axes: Axes, panel: _Panel, section: CalibrationSection) -> None:
    edge = [section.table[index] for index in frontier(section)]
    drawn: list[float] = [] if panel.limit is None else [panel.limit]
    for line in panel.lines:
        every = _values(line, section.table)
        (joined,) = axes.plot(_sizes(edge), _values(line, edge), ".-", lw=1.2, label=line.label)
        axes.plot(_sizes(section.table), every, ".", color=joined.get_color(), alpha=0.3)
        drawn += every
        if section.chosen is not None:
            own = section.table[section.chosen]
            (ring,) = axes.plot(_sizes([own]), _values(line, [own]), "o", color=joined.get_color())
            ring.set(markersize=11, markerfacecolor="none", markeredgewidth=2)
    if panel.limit is not None:
        axes.axhline(panel.limit, color="firebrick", ls="--", lw=1, label="above: a blurred teacher")
    if section.chosen is not None:
        size = section.table[section.chosen].bytes_per_view
        axes.axvline(size, color="grey", ls=":", label=f"this cache, {size:.1f} bytes")
    axes.set(xscale="log", yscale="log", title=panel.title, ylabel=panel.y_axis)
    axes.set_xlabel("bytes per view on disk")
    _dress(axes, _sizes(section.table), drawn)


def _dress(axes: Axes, sizes: Sequence[float], drawn: Sequence[float]) -> None:
    """Limits that hold all points with room around them, and ticks as people write numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    left, right = min(sizes) / 1.2, max(sizes) * 1.2
    axes.set_xlim(left, right)
    axes.set_ylim(*_limits(drawn))
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    is_narrow = right / left < 20
    for axis, subs in ((axes.xaxis, _TICKS if is_narrow else (1, 2, 5)), (axes.yaxis, (1, 2, 5))):
        axis.set_major_locator(LogLocator(subs=subs, numticks=20))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    # Below the axes, where it covers no point.
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


def _limits(drawn: Sequence[float]) -> tuple[float, float]:
    """At least a decade, so that points that are all alike do not look far apart; little room above 1."""
    middle = math.sqrt(min(drawn) * max(drawn))
    wanted = max(1.5 * max(drawn), middle * math.sqrt(10))
    high = min(wanted, 1.15 * max(1.0, *drawn))
    return min(min(drawn) / 1.5, high / 10), high


def _sizes(points: Sequence[RatePoint]) -> list[float]:
    return [point.bytes_per_view for point in points]


def _values(line: _Line, points: Sequence[RatePoint]) -> list[float]:
    return [max(line.of(point), _SMALLEST) for point in points]
