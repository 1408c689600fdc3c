"""What a run reads, opened and found to fit together while torch is not imported, which takes many seconds.

Nothing here refuses what could work: what can only be known later is left to those who know it then.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from cache_builder.client.connection import PATIENCE_S
from cache_builder.datasets import ImageSource, open_source
from cache_builder.format.errors import ConfigError, FormatError
from cache_builder.format.locations import is_remote, local_path
from cache_builder.format.locks.lock import claimed
from cache_builder.format.positions import require_one_position
from cache_builder.format.wire import CACHES_PATH
from trainer.objective.terms import Terms
from trainer.objective.written import read_objective
from trainer.replay.matching import check_partners, labels_missing, rows_of
from trainer.replay.sources import check_views_asked, decoding_for, training_source
from trainer.run.classes import ClassPlan, held_out_labels, plan_classes
from trainer.run.run_folder import RunFolder
from trainer.run.run_location import run_path
from trainer.run.settings import TrainSettings
from trainer.students.known import check_student_name
from trainer.teacher.client import TeacherCache
from trainer.teacher.several import check_caches_agree


@dataclass(frozen=True)
class Inputs:
    """The caches and data sets of a run, open."""

    caches: tuple[TeacherCache, ...]
    """One per teacher."""
    source: ImageSource
    """What is trained on."""
    held_out: ImageSource | None
    """What is evaluated on after every epoch."""


def is_first_process() -> bool:
    """Whether this is process 0 of those that train together, as their launcher says, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def claim_output(settings: TrainSettings, resume: bool, stack: ExitStack) -> RunFolder:
    """Take ``--out`` as long as the stack lasts; :class:`ConfigError` where something else is there."""
    hold = None
    if is_first_process():
        # Before anything is looked at: what a second run sees must not change under it.
        hold = stack.enter_context(claimed(settings.out, doing="trained"))
    remote = None
    if is_remote(settings.out):
        from trainer.run.remote_run import RemoteRun

        remote = RemoteRun(settings.out, hold)
        stack.callback(remote.close)
        remote.fetch(resume)
    folder = RunFolder(run_path(settings.out), settings.keep_checkpoints, remote)
    folder.check_free(resume)
    return folder


def open_inputs(settings: TrainSettings, stack: ExitStack) -> Inputs:
    """Open caches and data sets; what must be closed goes onto the stack.

    Raises :class:`ConfigError` and :class:`DataError` for what is wrong with them or does not fit together.
    """
    check_student_name(settings.student)
    terms = read_objective(settings.loss, "imagenet")
    check_views_asked(settings)
    caches = tuple(open_teacher(location, stack, settings.patience_s) for location in settings.cache)
    check_caches_agree(caches)
    decoding = decoding_for(settings, caches)
    source = training_source(settings, decoding)
    held_out = None if settings.val_data is None else open_source(settings.val_data, decoding)
    inputs = Inputs(caches, source, held_out)
    _check_samples(inputs)
    _check_classes(inputs, settings, terms)
    return inputs


def open_teacher(location: str, stack: ExitStack, patience_s: float = PATIENCE_S) -> TeacherCache:
    """Open a cache; :class:`FormatError` where there is none, with what was probably meant."""
    if not is_remote(location):
        if f"{CACHES_PATH}/" in location:
            raise ConfigError(f"cache {location}: write http://{location} for the address of a server")
        if not (local_path(location) / "zarr.json").exists():
            raise FormatError(
                f"{location}: there is no cache here (no zarr.json); build one with `kdcache build`"
            )
    cache = stack.enter_context(TeacherCache.open(location, patience_s=patience_s))
    require_one_position(cache.manifest, location, "kdtrain")
    return cache


def _check_samples(inputs: Inputs) -> None:
    """Every sample of the data is one of each cache's, and mixed samples have their partners."""
    for cache in inputs.caches:
        rows = rows_of(cache, inputs.source)
        check_partners(cache, inputs.source, rows)


def _check_classes(inputs: Inputs, settings: TrainSettings, terms: Terms) -> None:
    """The classes of the data and of held-out data, as far as they are certain before the losses are made."""
    answers = _may_learn_labels(settings, terms)
    plans = [plan_classes(settings.classes, inputs.caches, inputs.source, learns) for learns in answers]
    if inputs.held_out is not None and len({plan.choice for plan in plans}) == 1:
        check_held_out(inputs.held_out, plans[0], "--val-data")


def _may_learn_labels(settings: TrainSettings, terms: Terms) -> tuple[bool, ...]:
    """What ``trainer.run.resolve.learns_labels`` may find; of two answers it is known when torch is there."""
    if settings.aux_head or any(term.head == "aux" for term in terms):
        return (False,)
    return (True,) if any(term.name == "ce" for term in terms) else (False, True)


def check_held_out(source: ImageSource, student: ClassPlan, who: str) -> None:
    """Raise where a held-out data set has no labels, or labels of classes that the student does not have."""
    labels = held_out_labels(source, student)
    missing = len(source) if labels is None else int((labels < 0).sum())
    if missing:
        raise ConfigError(labels_missing(who, missing, len(source), source.spec))
