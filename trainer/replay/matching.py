"""Which sample of a data set is which row of a cache, and what its label is there: no torch."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets import ImageSource
from cache_builder.datasets.class_names import relabelled
from cache_builder.format import DataError, UnknownSampleError
from cache_builder.views import recipe_from
from trainer.run.classes import teacher_ids
from trainer.teacher.client import TeacherCache

NAMED = 5
"""Samples that a message shows."""

log = logging.getLogger(__name__)


def rows_of(cache: TeacherCache, source: ImageSource) -> NDArray[np.int64]:
    """The row of every sample [n]; raises :class:`DataError` naming samples that the cache lacks."""
    try:
        return cache.rows_for(source.ids)
    except UnknownSampleError as error:
        raise DataError(
            f"{source.spec} does not match cache {cache.manifest.name!r}: {error}; "
            + _what_to_do(cache, source)
        ) from error


def match_rows(cache: TeacherCache, source: ImageSource) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows of the cache, indices of the source) of the usable samples, by rising row.

    Raises :class:`DataError` naming samples that the cache lacks; rows the builder could not read are left
    out, cached samples that the source lacks are only logged.
    """
    rows = rows_of(cache, source)
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
    if not recipe_from(manifest.views.recipe).mixes_any(manifest.views.count):
        return
    missing = np.setdiff1d(np.arange(manifest.data.samples), [*rows, *manifest.invalid_rows])
    if missing.size:
        raise DataError(
            f"{source.spec} lacks {missing.size} of the {manifest.data.samples} samples of cache "
            f"{manifest.name!r}, e.g. {cache.ids[int(missing[0])]!r}, and its recipe "
            f"{manifest.views.recipe.name!r} mixes samples with each other: give the whole data set it was "
            f"built from ({manifest.data.spec})"
        )


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


def _what_to_do(cache: TeacherCache, source: ImageSource) -> str:
    samples = cache.manifest.data.samples
    if list(source.ids[:samples]) == list(cache.ids):
        return f"the cache holds the first {samples} samples: add --limit {samples}"
    return f"train on the data set the cache was built from ({cache.manifest.data.spec}) or a part of it"


def _log_missing(cache: TeacherCache, source: ImageSource, rows: NDArray[np.int64]) -> None:
    missing = np.setdiff1d(np.arange(cache.manifest.data.samples), rows)
    if missing.size:
        named = ", ".join(repr(cache.ids[int(row)]) for row in missing[:NAMED])
        log.warning(
            "%s has %d of the %d cached samples; without %s%s",
            *(source.spec, len(rows), cache.manifest.data.samples, named),
            " and others" if missing.size > NAMED else "",
        )


def labels_missing(who: str, missing: int, samples: int, spec: str) -> str:
    """What to say where labels are needed and some are not there."""
    return f"{who} needs labels, but {missing} of {samples} samples of {spec} have none"
