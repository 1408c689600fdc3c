"""The render probe: a few stored pictures that tell whether this machine renders what the teacher saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.format.errors import DataError
from cache_builder.format.manifest import Manifest, PixelsProbe
from cache_builder.views.apply import ReadImage
from cache_builder.views.philox import Stream, uniforms
from cache_builder.views.replay import Replay

PROBE_PAIRS = 4
# Mean absolute difference in levels of 255. Other JPEG decoders and SIMD resizers stay below one level;
# a missing antialias filter, a swapped colour order or a crop moved by some pixels gives five and more.
PROBE_TOLERANCE = 2.0
_PROBE_CANDIDATES = 64


@dataclass(frozen=True)
class ProbeDifference:
    """One probe picture rendered again here."""

    view: int
    row: int
    sample_id: str
    difference: float
    """Mean absolute pixel difference, in levels of 255."""
    stored: NDArray[np.uint8]
    rendered: NDArray[np.uint8]


class Pictures(Protocol):
    """What the probe needs of a data set: the names of its samples and their pictures."""

    spec: str

    @property
    def ids(self) -> Sequence[str]:
        """Sample ids, in order."""

    def read(self, row: int) -> Picture:
        """One sample. Raises :class:`DataError` for one that cannot be read."""


class Picture(Protocol):
    """A sample that is a picture."""

    @property
    def value(self) -> Tensor:
        """uint8 [3, H, W]."""


def render_probe(
    source: Pictures, replay: Replay, skip_unreadable: bool = False
) -> tuple[PixelsProbe, NDArray[np.uint8]]:
    """Render a few seeded pairs: the manifest's section and pixels uint8 [pairs, 3, size, size].

    A strong view is among them where the recipe has one: operations and mixing drift too.
    """
    strong = {view for view in range(replay.count) if replay.recipe.is_strong(view)}
    wanted = min(PROBE_PAIRS, replay.samples)
    pairs: list[tuple[int, int]] = []
    pixels: list[NDArray[np.uint8]] = []
    draws = uniforms(replay.seed, 0, np.arange(_PROBE_CANDIDATES), 1, Stream.PROBE)[:, 0]

    def read(row: int) -> Tensor | None:
        return _read(source, row, skip_unreadable)

    for index, row in enumerate((draws * replay.samples).astype(int)):
        view = index % replay.count
        picture = _rendered(replay, view, int(row), read)
        if picture is None:
            continue
        pixels.append(picture)
        pairs.append((view, int(row)))
        if len(pairs) >= wanted and (not strong or strong & {view for view, _ in pairs}):
            break
    if not pixels:
        raise DataError(
            f"{source.spec}: none of {_PROBE_CANDIDATES} samples could be read for the render probe"
        )
    libraries = {name: version(name) for name in ("torchvision", "pillow")}
    section = PixelsProbe(pairs=tuple(pairs), libraries=libraries, tolerance=PROBE_TOLERANCE)
    return section, np.stack(pixels)


def probe_differences(
    manifest: Manifest, pixels: NDArray[np.uint8], source: Pictures, cache_ids: Sequence[str]
) -> list[ProbeDifference]:
    """Render the probe again from a data set; samples, or partners of them, that it lacks are left out.

    ``pixels``: uint8 [pairs, 3, S, S] as stored; ``cache_ids`` [N]: the cache's sample ids in row order.
    """
    if not manifest.probe.pairs:
        return []
    replay = Replay.of(manifest)
    needed = [replay.rows_of(view, row) for view, row in manifest.probe.pairs]
    rows = {row: cache_ids[row] for row in set().union(*needed)}
    wanted = set(rows.values())
    here = {sample_id: index for index, sample_id in enumerate(source.ids) if sample_id in wanted}
    invalid = set(manifest.invalid_rows)

    def read(row: int) -> Tensor | None:
        return None if row in invalid else source.read(here[rows[row]]).value

    found = []
    for (view, row), own, stored in zip(manifest.probe.pairs, needed, pixels, strict=True):
        readable = own - invalid
        if row not in readable or any(rows[each] not in here for each in readable):
            continue
        rendered = _rendered(replay, view, row, read)
        assert rendered is not None
        difference = float(np.abs(rendered.astype(np.int16) - stored).mean())
        found.append(ProbeDifference(view, row, rows[row], difference, stored, rendered))
    return found


def _read(source: Pictures, row: int, skip_unreadable: bool) -> Tensor | None:
    try:
        return source.read(row).value
    except DataError:
        if not skip_unreadable:
            raise
        return None


def _rendered(replay: Replay, view: int, row: int, read: ReadImage) -> NDArray[np.uint8] | None:
    (rendered,) = replay.batch([(row, view)], read)
    return None if rendered.image is None else np.asarray(rendered.image.numpy(), np.uint8)
