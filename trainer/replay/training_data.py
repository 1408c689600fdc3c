"""What a run trains on: the samples, their views and their labels, from caches or from a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache_builder.datasets import ImageSource
from cache_builder.format import ConfigError
from cache_builder.views.replay import Replay
from trainer.replay.matching import usable_labels
from trainer.replay.order import epoch_order
from trainer.replay.same_data import check_against_cache
from trainer.replay.sources import own_views
from trainer.replay.view_dataset import ReplayDataset, ViewDataset, natural_size
from trainer.run.classes import ClassChoice
from trainer.run.run_folder import DRIFT
from trainer.run.run_location import run_path
from trainer.run.settings import TrainSettings
from trainer.teacher.client import TeacherCache

# Epochs that no run reaches: choices that are made once have an order of their own.
_ORDER_OF_LABELS, _ORDER_OF_SET_ASIDE = 2**64 - 1, 2**64 - 2
_SET_ASIDE_SHARE = 0.1


def training_data(
    settings: TrainSettings,
    caches: Sequence[TeacherCache],
    source: ImageSource,
    choice: ClassChoice = "teacher",
) -> ViewDataset:
    """The training samples in the views of the caches, or in views that are drawn here.

    ``choice``: labels are the teacher's class ids, unless it is ``data`` or ``both``: then the data's own.
    That the caches agree with each other was seen when they were opened (``open_inputs``). Each is checked
    against the data here; raises :class:`DataError` for one that does not fit.
    """
    dataset = _taught(settings, caches, source) if caches else _untaught(settings, source)
    if caches and choice != "teacher" and source.labels is not None:
        dataset = dataset.subset(np.arange(len(dataset)), labels=source.labels[dataset.indices])
    if settings.labelled is not None:
        dataset = _partly_labelled(dataset, settings.labelled, settings.seed)
    return dataset


def count_set_aside(labelled: int) -> int:
    """How many of the labelled samples a loss that learns from other samples gets: a tenth, at least one."""
    return min(labelled, max(1, round(_SET_ASIDE_SHARE * labelled)))


class Split(NamedTuple):
    """Two parts of the training data without a common sample."""

    training: ViewDataset
    set_aside: ViewDataset


def split(dataset: ViewDataset, set_aside: int, seed: int) -> Split:
    """Set some labelled samples aside, chosen by the seed; both parts keep the order of the whole."""
    labelled = np.flatnonzero(dataset.labels >= 0)
    chosen = epoch_order(seed, _ORDER_OF_SET_ASIDE, labelled.size)[:set_aside]
    is_aside = np.zeros(len(dataset), np.bool_)
    is_aside[labelled[chosen]] = True
    return Split(dataset.subset(np.flatnonzero(~is_aside)), dataset.subset(np.flatnonzero(is_aside)))


def class_counts(dataset: ViewDataset, classes: int) -> Tensor:
    """How often each class is a label, int64 [C]."""
    labels = dataset.labels[dataset.labels >= 0]
    return torch.from_numpy(np.bincount(labels, minlength=classes))


def _taught(settings: TrainSettings, caches: Sequence[TeacherCache], source: ImageSource) -> ViewDataset:
    first = ReplayDataset(
        caches[0],
        source,
        settings.image_size,
        allow_render_drift=settings.allow_render_drift,
        drift_folder=run_path(settings.out) / DRIFT,
    )
    return first if len(caches) == 1 else _taught_by_all(settings, caches, first)


def _taught_by_all(
    settings: TrainSettings, caches: Sequence[TeacherCache], first: ReplayDataset
) -> ViewDataset:
    """The samples that every cache can teach, in the views that every cache has."""
    labels = first.labels
    for cache in caches[1:]:
        drift = run_path(settings.out) / DRIFT
        rows, indices = first.rows, first.indices
        check_against_cache(cache, first.source, rows, indices, settings.allow_render_drift, drift)
        labels = np.where(labels >= 0, labels, usable_labels(cache, first.source, rows, indices))
    invalid = [row for cache in caches for row in cache.manifest.invalid_rows]
    positions = np.flatnonzero(~np.isin(first.rows, invalid))
    views = replace(first.views, count=min(cache.manifest.views.count for cache in caches))
    return first.subset(positions, views=views, labels=labels[positions])


def _untaught(settings: TrainSettings, source: ImageSource) -> ViewDataset:
    recipe, views = own_views(settings)
    size = settings.image_size or natural_size(source)
    return ViewDataset(source, Replay(recipe, settings.seed, views, len(source), size, "bilinear"))


def _partly_labelled(dataset: ViewDataset, share: float, seed: int) -> ViewDataset:
    """The same samples; of those that have a label, a share keeps it, at least one."""
    having: NDArray[np.int64] = np.flatnonzero(dataset.labels >= 0)
    if not having.size:
        raise ConfigError(f"--labelled {share:g}: no sample of {dataset.source.spec} has a label")
    kept = having[epoch_order(seed, _ORDER_OF_LABELS, having.size)[: max(1, round(share * having.size))]]
    labels = np.full_like(dataset.labels, -1)
    labels[kept] = dataset.labels[kept]
    return dataset.subset(np.arange(len(dataset)), labels=labels)
