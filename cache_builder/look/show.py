"""``kdcache inspect --show``: one sample as the teacher saw it, and what the teacher said, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.datasets import ImageSource, check_recorded, open_source
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.positions import require_one_position
from cache_builder.format.probabilities import softmax
from cache_builder.format.reader import Cache, open_cache
from cache_builder.look.images import Images
from cache_builder.views import ViewParams
from cache_builder.views.crops import Box
from cache_builder.views.replay import Replay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP = 10
_PANEL = 3.6
"""Inches, of a picture's side."""
_CROP, _BAR, _OWN_BAR = "#ff7f0e", "#8c96a3", "#2ca02c"
_NAME_LENGTH = 28


@dataclass(frozen=True)
class Source:
    """A source image and the part of it that the view shows."""

    title: str
    image: Tensor
    """uint8 [3, H, W]."""
    crop: Box


@dataclass(frozen=True)
class SeenView:
    """Everything the picture shows."""

    title: str
    sources: list[Source]
    """The sample's own, then the partner's where two are mixed."""
    seen: Tensor
    """uint8 [3, S, S]: what the teacher saw."""
    drawn: list[str]
    """The drawn parameters in words."""
    names: list[str]
    """The teacher's most likely classes."""
    probabilities: NDArray[np.float64]
    """Of these."""
    is_label: list[bool]
    """Which of these is a label of what is shown."""


def show_view(location: str, sample_id: str, view: int, data: str | None, out: Path | None) -> Path:
    """Write the picture of one record; returns its path.

    ``data``: where the images are, by default as the manifest says; ``out``: a PNG file, by default named
    after view and row. Raises :class:`DataError` for an unknown sample or view, images that are not there or
    changed, and a record marked invalid; :class:`ConfigError` for data that cannot be opened.
    """
    seen, row = look(location, sample_id, view, data)
    path = out or Path(f"view{view}-row{row}.png")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}: expected a .png file")
    draw_picture(seen, path)
    return path


def look(location: str, sample_id: str, view: int, data: str | None) -> tuple[SeenView, int]:
    """What the picture shows, and the row it is of. Raises as :func:`show_view`."""
    cache = open_cache(location, allow_partial=True)
    manifest = cache.manifest
    if not 0 <= view < manifest.views.count:
        raise DataError(f"view {view} is out of range: the cache has views 0 to {manifest.views.count - 1}")
    require_one_position(manifest, location, "inspect --show")
    row = int(cache.rows_for([sample_id])[0])
    if row in manifest.invalid_rows:
        raise DataError(f"sample {sample_id!r} could not be read when the cache was built: nothing to show")
    images = _Read(cache, _opened(cache, data))
    replay = Replay.of(manifest)
    params = replay.drawn(view, [row])
    (rendered,) = replay.batch([(row, view)], images.read)
    assert rendered.image is not None
    rows = [row] if rendered.partner == row else [row, rendered.partner]
    names, probabilities, is_label = _answer(cache, view, row, rows)
    seen = SeenView(
        title=f"{sample_id}, view {view} of {manifest.name} ({manifest.views.recipe.name}), row {row}",
        sources=[_source(cache, replay, view, shown, images) for shown in rows],
        seen=rendered.image,
        drawn=params.described(0) + _of_partner(replay, view, rows, params),
        names=names,
        probabilities=probabilities,
        is_label=is_label,
    )
    return seen, row


class _Read(Images):
    """Images that stay in memory once they were read, since they are drawn too."""

    def __init__(self, cache: Cache, source: ImageSource) -> None:
        super().__init__(cache, source)
        self._read: dict[int, Tensor | None] = {}

    def read(self, row: int) -> Tensor | None:
        if row not in self._read:
            self._read[row] = super().read(row)
        return self._read[row]

    def image(self, row: int) -> Tensor:
        """The image of a row that was read already."""
        image = self._read[row]
        assert image is not None
        return image


def _opened(cache: Cache, data: str | None) -> ImageSource:
    if data is None:
        check_recorded(cache.manifest.data.spec)
    try:
        return open_source(data or cache.manifest.data.spec, cache.manifest.input.decoding)
    except (ConfigError, DataError) as error:
        hint = "" if data else "; say where the images are with --data"
        raise type(error)(f"{error}{hint}") from error


def _source(cache: Cache, replay: Replay, view: int, row: int, images: _Read) -> Source:
    """A row's image and crop."""
    image, params = images.image(row), replay.drawn(view, [row])
    height, width = image.shape[-2:]
    label = int(cache.labels[row])
    title = f"{shorten_left(cache.ids[row])}\n{width} x {height}, " + (
        f"label {_class_name(cache, label)}" if label >= 0 else "no label"
    )
    return Source(title, image, replay.recipe.box(params.crop[0], height, width))


def _of_partner(replay: Replay, view: int, rows: list[int], params: ViewParams) -> list[str]:
    """What was drawn for the partner's own picture."""
    if len(rows) == 1:
        missing = params.partner_of(0)
        return [] if missing is None else [f"row {missing} could not be read, so nothing was mixed"]
    theirs = replay.drawn(view, rows[1:])
    # The last line is the mixing, which is the same for both.
    return ["partner: " + ", ".join(theirs.described(0)[:-1])]


def _answer(
    cache: Cache, view: int, row: int, rows: list[int]
) -> tuple[list[str], NDArray[np.float64], list[bool]]:
    """Names, probabilities and whether it is a label, of the most likely classes."""
    logits = cache.decode(cache.read_rows(view, range(row, row + 1)))[0].astype(np.float64)
    probabilities = softmax(logits)
    best = np.argsort(-probabilities, kind="stable")[:_TOP]
    labels = {int(cache.labels[shown]) for shown in rows}
    names = [_class_name(cache, int(index)) for index in best]
    return names, probabilities[best], [int(index) in labels for index in best]


def _class_name(cache: Cache, index: int) -> str:
    names = cache.class_names
    return shorten(names[index], _NAME_LENGTH, placeholder="…") if names else f"class {index}"


def shorten_left(text: str, length: int = 40) -> str:
    """The end of a path tells more than its beginning."""
    return text if len(text) <= length else "…" + text[1 - length :]


def draw_picture(seen: SeenView, path: Path) -> None:
    """Source images with their crops, the view, the teacher's answer and the drawn parameters, as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError(f"--show needs {error.name}: pip install matplotlib") from error
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder {path.parent}")
    panels = len(seen.sources) + 1
    widths = [1.0] * panels + [1.25]
    figure = Figure(figsize=(_PANEL * sum(widths), _PANEL + 1.6), layout="constrained")
    figure.suptitle(seen.title.replace("$", r"\$"), fontsize=12, x=0.01, ha="left")
    axes = figure.subplots(1, panels + 1, width_ratios=widths)
    for place, source in zip(axes, seen.sources, strict=False):
        _draw_source(place, source)
    _draw_image(axes[panels - 1], seen.seen, "as the teacher saw it")
    _draw_answer(axes[panels], seen)
    figure.supxlabel(
        _wrapped(seen.drawn, 34 * len(widths)), fontsize=9, x=0.01, ha="left", family="monospace"
    )
    figure.savefig(path, dpi=110, format="png")


def _wrapped(drawn: list[str], width: int) -> str:
    """The parameters side by side, as many on a line as fit."""
    lines = [""]
    for item in drawn:
        joined = f"{lines[-1]}; {item}" if lines[-1] else item
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(item)
    return "\n".join(lines).replace("$", r"\$")


def _draw_image(axes: Axes, image: Tensor, title: str) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title.replace("$", r"\$"), fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_source(axes: Axes, source: Source) -> None:
    """The whole image, the crop framed; a crop may reach outside."""
    from matplotlib.patches import Rectangle

    _draw_image(axes, source.image, source.title)
    box = source.crop
    corner = (box.left - 0.5, box.top - 0.5)
    axes.add_patch(Rectangle(corner, box.width, box.height, fill=False, edgecolor=_CROP, linewidth=2.5))
    height, width = source.image.shape[-2:]
    margin = 0.03 * max(height, width)
    axes.set_xlim(min(0, box.left) - margin, max(width, box.left + box.width) + margin)
    axes.set_ylim(max(height, box.top + box.height) + margin, min(0, box.top) - margin)
    axes.set_frame_on(False)


def _draw_answer(axes: Axes, seen: SeenView) -> None:
    """Horizontal bars, the most likely class on top, labels in another colour."""
    places = range(len(seen.names))
    colours = [_OWN_BAR if own else _BAR for own in seen.is_label]
    axes.barh(places, seen.probabilities, color=colours)
    axes.set_yticks(places, [name.replace("$", r"\$") for name in seen.names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(1e-3, float(seen.probabilities[0])) * 1.25)
    for place, probability in enumerate(seen.probabilities):
        axes.text(probability, place, f" {probability:.1%}", va="center", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    known = "label: green" if any(seen.is_label) else "no label among them"
    axes.set_title(f"what the teacher said ({known})", fontsize=9)
