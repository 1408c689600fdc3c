"""Before the first step: is this the data set the cache is about, and does this machine render the same?"""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache_builder.datasets import ImageSource, decoding_of
from cache_builder.datasets.class_names import relabelled
from cache_builder.format import DataError, UnknownSampleError
from cache_builder.views import Replay
from cache_builder.views.probe import ProbeDifference, probe_differences
from trainer.run.classes import teacher_ids
from trainer.teacher.client import TeacherCache

# Samples whose digest is checked before training; the loader checks the others as it reads them.
DIGESTS_CHECKED = 16
_NAMED = 5

log = logging.getLogger(__name__)


class RenderDriftError(DataError):
    """This machine renders the views differently from the one that built the cache."""


def match_rows(cache: TeacherCache, source: ImageSource) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows of the cache, indices of the source) of the usable samples, by rising row.

    Raises :class:`DataError` naming samples that the cache lacks; rows the builder could not read are left
    out, cached samples that the source lacks are only logged.
    """
    try:
        rows = cache.rows_for(source.ids)
    except UnknownSampleError as error:
        raise DataError(
            f"{source.spec} does not match cache {cache.manifest.name!r}: {error}; "
            + _what_to_do(cache, source)
        ) from error
    indices = np.argsort(rows, kind="stable")
    indices = indices[~np.isin(rows[indices], cache.manifest.invalid_rows)]
    if not indices.size:
        raise DataError(f"{source.spec} holds no sample that cache {cache.manifest.name!r} can teach")
    _log_missing(cache, source, rows)
    return rows[indices], indices


def check_partners(cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64]) -> None:
    """Raise :class:`DataError` where samples are mixed with partners that the source may lack.

    ``rows``: the usable ones that it has.
    """
    manifest = cache.manifest
    if not Replay.of(manifest).mixes:
        return
    missing = np.setdiff1d(np.arange(manifest.data.samples), [*rows, *manifest.invalid_rows])
    if missing.size:
        raise DataError(
            f"{source.spec} lacks {missing.size} of the {manifest.data.samples} samples of cache "
            f"{manifest.name!r}, e.g. {cache.ids[int(missing[0])]!r}, and its recipe "
            f"{manifest.views.recipe.name!r} mixes samples with each other: give the whole data set it was "
            f"built from ({manifest.data.spec})"
        )


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


def usable_labels(
    cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64], indices: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Labels of the given samples, -1 where none is known: the cache's, else those of the source.

    The source's are turned into the teacher's class ids; those of classes that are not the teacher's are not
    used.
    """
    cached = cache.labels[rows]
    ids = teacher_ids(cache, source)
    if source.labels is None or ids is None:
        return cached
    return np.where(cached >= 0, cached, relabelled(source.labels[indices], ids))


def _check_decoding(cache: TeacherCache, source: ImageSource) -> None:
    found, wanted = decoding_of(source), cache.manifest.data.decoding
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
            *(source.spec, len(ids), cache.manifest.data.classes, cache.manifest.name),
        )


def _what_to_do(cache: TeacherCache, source: ImageSource) -> str:
    samples = cache.manifest.data.samples
    if list(source.ids[:samples]) == list(cache.ids):
        return f"the cache holds the first {samples} samples: add --limit {samples}"
    return f"train on the data set the cache was built from ({cache.manifest.data.spec}) or a part of it"


def _log_missing(cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64]) -> None:
    missing = np.setdiff1d(np.arange(cache.manifest.data.samples), rows)
    if missing.size:
        named = ", ".join(repr(cache.ids[int(row)]) for row in missing[:_NAMED])
        log.warning(
            "%s has %d of the %d cached samples; without %s%s",
            *(source.spec, len(rows), cache.manifest.data.samples, named),
            " and others" if missing.size > _NAMED else "",
        )


def _check_digests(
    cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64], indices: NDArray[np.int64]
) -> None:
    places = np.unique(np.linspace(0, len(rows) - 1, DIGESTS_CHECKED).astype(np.int64))
    expected = cache.digests[rows[places]]
    found = [source.read(int(indices[place])).digest for place in places]
    changed = [place for place, a, b in zip(places, expected, found, strict=True) if int(a) != b]
    if changed:
        named = ", ".join(repr(source.ids[int(indices[place])]) for place in changed[:_NAMED])
        raise DataError(
            f"{source.spec}: {len(changed)} of {len(places)} samples looked at changed since the cache was "
            f"built (their digests differ): {named}; use the unchanged data set or rebuild the cache"
        )


def _check_rendering(
    cache: TeacherCache, source: ImageSource, allow_render_drift: bool, drift_folder: Path
) -> None:
    manifest = cache.manifest
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
