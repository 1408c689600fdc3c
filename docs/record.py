"""The picture of one record, from the cache that FORMAT.md works through: python docs/record.py SVG"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache_builder.format import open_cache

EXAMPLE = Path(__file__).parent.parent / "tests/format/golden/v3/example.zarr"
TEACHER = (3.0, 5.0, 1.75, 2.25, 0.5, -0.25)
"""What the teacher said of sample 0: a cache does not keep it, FORMAT.md says it."""
GREY, BLUE, GREEN, AMBER = "#e2e8f0", "#bfdbfe", "#bbf7d0", "#fde68a"
INK, SOFT, EDGE = "#0f172a", "#475569", "#334155"
ZERO, PER_LOGIT, PITCH, BAR = 244, 30, 36, 26
"""Of the bars: where logit 0 lies, and pixels for one logit, from bar to bar, and of a bar's width."""


@dataclass(frozen=True)
class Example:
    """One record and what it decodes to."""

    fields: dict[str, np.ndarray]
    logits: list[float]
    sketch: list[float]
    """The logits before the stored classes are put right."""
    step: float
    """What one step of a residual is, in logits."""


@dataclass(frozen=True)
class Line:
    """Some bytes of the record and what they say."""

    name: str
    colour: str
    says: str
    more: str


def example() -> Example:
    """Sample 0 of the cache in view 0."""
    cache = open_cache(EXAMPLE)
    record = cache.read_page(0)[:1]
    fields = {name: column[0] for name, column in cache.codec.unpack(record).items()}
    logits = cache.decode(record)[0]
    sketch = logits.copy()
    step = cache.codec.settings.value_step
    sketch[fields["topk_index"]] -= fields["topk_residual"] * step
    return Example(fields, logits.tolist(), sketch.tolist(), step)


def put_right(shown: Example, number: int) -> str:
    """How one of the best classes gets its logit."""
    sketch, logit = shown.sketch[number], shown.logits[number]
    return f"{sketch:g} + {logit - sketch:g} = {logit:g}"


def lines(shown: Example) -> list[Line]:
    """The fields in the order of the record."""
    fields = {name: np.atleast_1d(column) for name, column in shown.fields.items()}
    above, best = float(fields["lse_above"][0]), fields["topk_index"]
    first, second = best
    return [
        Line(
            "lse_above",
            GREY,
            f"log-sum-exp of all is {above:.4f} above the best:",
            f"class {first} has probability exp(-{above:.4f}) = {np.exp(-above):.3f}",
        ),
        Line(
            "topk_index",
            BLUE,
            f"the K = 2 best: class {first}, class {second}",
            "in the order of their logits",
        ),
        Line(
            "topk_residual",
            BLUE,
            f"{' and '.join(map(str, fields['topk_residual']))} steps of {shown.step:g} above the sketch:",
            ", ".join(put_right(shown, number) for number in best),
        ),
        Line(
            "tail_coef",
            GREEN,
            f"the sketch of all six: {fields['tail_coef'][0]} more than",
            f"what is usual when class {first} is the best",
        ),
        Line(
            "tail_coef_packed",
            GREEN,
            f"and half a byte: {(int(fields['tail_coef_packed'][0]) & 15) - 8}",
            "the other half would be a third number",
        ),
    ]


def text(x: float, y: float, words: str, size: int = 12, fill: str = SOFT, more: str = "") -> str:
    """A line of text."""
    return f'  <text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{more}>{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    """A rectangle."""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'  <rect {place} fill="{fill}" stroke="{EDGE}"/>'


def bar(x: float, low: float, high: float, fill: str) -> str:
    """From one logit to another."""
    return box(x, ZERO - PER_LOGIT * high, BAR, PER_LOGIT * (high - low), fill)


def under(x: float, number: int, value: float) -> Iterator[str]:
    """The value of a bar above it, and its class below."""
    middle = ' text-anchor="middle"'
    yield text(x + BAR / 2, ZERO - PER_LOGIT * max(value, 0) - 6, f"{value:g}", 13, INK, middle)
    yield text(x + BAR / 2, ZERO + 24, str(number), 12, SOFT, middle)


def said(left: float) -> Iterator[str]:
    """What the teacher said."""
    for number, value in enumerate(TEACHER):
        x = left + PITCH * number
        yield bar(x, min(value, 0), max(value, 0), AMBER)
        yield from under(x, number, value)


def decoded(left: float, shown: Example) -> Iterator[str]:
    """What a reader gets: the sketch, and what puts the best classes right; dashes where the teacher was."""
    for number, (value, sketch, live) in enumerate(zip(shown.logits, shown.sketch, TEACHER, strict=True)):
        x = left + PITCH * number
        yield bar(x, 0, sketch, GREEN)
        if value > sketch:
            yield bar(x, sketch, value, BLUE)
        where = f"M{x - 4} {ZERO - PER_LOGIT * live:g} h{BAR + 8}"
        yield f'  <path d="{where}" stroke="#b45309" stroke-width="2.5" stroke-dasharray="5 3"/>'
        yield from under(x, number, value)


def record(left: float, shown: Example) -> Iterator[str]:
    """The bytes, a line a field."""
    for number, line in enumerate(lines(shown)):
        y = 70 + 41 * number
        for place, byte in enumerate(shown.fields[line.name].tobytes()):
            yield box(left + 42 * place, y, 38, 30, line.colour)
            mono = ' text-anchor="middle" font-family="Menlo, Consolas, monospace"'
            yield text(left + 42 * place + 19, y + 20, f"{byte:02x}", 15, INK, mono)
        yield text(left + 94, y + 12, line.says, 12, INK)
        yield text(left + 94, y + 27, line.more, 12, INK)


def picture() -> str:
    """The whole of it, white behind: it is read on dark pages too."""
    shown = example()
    title = "one record: what the teacher said of six classes, the eight bytes, what a reader gets"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 320" width="980" height="320" '
            'font-family="Helvetica, Arial, sans-serif" role="img" aria-labelledby="title">',
            f'  <title id="title">{title}</title>',
            '  <rect width="980" height="320" fill="#ffffff"/>',
            text(24, 32, "the teacher says", 15, INK, ' font-weight="bold"'),
            *said(24),
            text(24, 292, "logits of classes 0 to 5"),
            text(256, 160, "&#8594;", 22),
            text(290, 32, "kept: 8 bytes", 15, INK, ' font-weight="bold"'),
            *record(290, shown),
            text(290, 292, "blue: the best classes, one by one; green: the sketch of all"),
            text(706, 160, "&#8594;", 22),
            text(742, 32, "a reader gets", 15, INK, ' font-weight="bold"'),
            *decoded(742, shown),
            text(742, 292, "dashes: what the teacher said"),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
