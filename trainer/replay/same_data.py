"""Before the first step: is this the data set the cache is about, and does this machine render the same?"""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_builder.datasets import ImageSource, decoding_of
from cache_builder.format import DataError
from cache_builder.views.probe import ProbeDifference, probe_differences
from trainer.replay.matching import NAMED
from trainer.run.classes import teacher_ids
from trainer.teacher.client import TeacherCache

# Samples whose digest is checked before training; the loader checks the others as it reads them.
DIGESTS_CHECKED = 16

log = logging.getLogger(__name__)


class RenderDriftError(DataError):
    """This machine renders the views differently from the one that built the cache."""


def check_against_cache(
    cache: TeacherCache,
    source: ImageSource,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
    allow_render_drift: bool,
    drift_folder: Path,
) -> None:
    """Decoding, labels, some digests and the render probe; raises :class:`DataError` naming what differs."""
    _check_decoding(cache, source)
    _tell_unused_labels(cache, source)
    _check_digests(cache, source, rows, indices)
    _check_rendering(cache, source, allow_render_drift, drift_folder)


def _check_decoding(cache: TeacherCache, source: ImageSource) -> None:
    found, wanted = decoding_of(source), cache.manifest.input.decoding
    if found is not None and found != wanted:
        raise DataError(
            f"{source.spec} was opened with decoding rule {found}, cache {cache.manifest.name!r} was built "
            f"by rule {wanted}, and they differ in orientation and in 16-bit pictures: open it with "
            f"open_source({source.spec!r}, decoding={wanted})"
        )


def _tell_unused_labels(cache: TeacherCache, source: ImageSource) -> None:
    ids = teacher_ids(cache, source)
    if source.labels is not None and ids is not None and (ids < 0).all():
        log.warning(
            "%s: none of its %d classes is among the %d of the teacher of cache %r: for that teacher "
            "its labels are not used",
            *(source.spec, len(ids), cache.manifest.classes, cache.manifest.name),
        )


def _check_digests(
    cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64], indices: NDArray[np.int64]
) -> None:
    places = np.unique(np.linspace(0, len(rows) - 1, DIGESTS_CHECKED).astype(np.int64))
    expected = cache.digests[rows[places]]
    found = [source.read(int(indices[place])).digest for place in places]
    changed = [place for place, a, b in zip(places, expected, found, strict=True) if int(a) != b]
    if changed:
        named = ", ".join(repr(source.ids[int(indices[place])]) for place in changed[:NAMED])
        raise DataError(
            f"{source.spec}: {len(changed)} of {len(places)} samples looked at changed since the cache was "
            f"built (their digests differ): {named}; use the unchanged data set or rebuild the cache"
        )


def _check_rendering(
    cache: TeacherCache, source: ImageSource, allow_render_drift: bool, drift_folder: Path
) -> None:
    manifest = cache.manifest
    if not manifest.probe.pairs:
        return
    differences = probe_differences(manifest, cache.probe_pixels, source, cache.ids)
    worst = max(differences, key=lambda item: item.difference, default=None)
    if worst is None or worst.difference <= manifest.probe.tolerance:
        return
    pictures = _save_pictures(worst, drift_folder)
    here = ", ".join(f"{name} {version(name)}" for name in manifest.probe.libraries)
    there = ", ".join(f"{name} {number}" for name, number in manifest.probe.libraries.items())
    message = (
        f"this machine renders other pictures than the teacher saw: sample {worst.sample_id!r} in view "
        f"{worst.view} differs by {worst.difference:.1f} levels on average, at most "
        f"{manifest.probe.tolerance:g} are expected; here {here or 'unknown'}, there {there or 'unknown'}; "
        f"compare {pictures[0]} with {pictures[1]}"
    )
    if not allow_render_drift:
        raise RenderDriftError(f"{message}; --allow-render-drift trains all the same")
    log.warning("%s", message)


def _save_pictures(difference: ProbeDifference, folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"view{difference.view}-row{difference.row}"
    teacher, here = folder / f"{stem}-teacher.png", folder / f"{stem}-here.png"
    for pixels, path in ((difference.stored, teacher), (difference.rendered, here)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return teacher, here
