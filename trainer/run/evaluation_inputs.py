"""What an evaluation reads, opened and found to fit the run while torch is not imported."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cache_builder.console.names import check_device_name
from cache_builder.datasets import ImageSource, LimitedSource, open_source
from cache_builder.format import ConfigError
from trainer.replay.matching import rows_of
from trainer.run.config import RunConfig
from trainer.run.inputs import check_held_out, open_teacher
from trainer.run.remote_run import at_hand
from trainer.run.run_folder import BEST, LAST, RunFolder
from trainer.teacher.client import TeacherCache


@dataclass(frozen=True)
class Looked:
    """A run and the weights that are looked at."""

    config: RunConfig
    folder: Path
    """Where the run's files are at hand."""
    weights: Path
    weights_name: str
    """What the user calls them."""


@dataclass(frozen=True)
class EvaluationInputs:
    """A run, the weights that are looked at, and what they are looked at on."""

    run: Looked
    source: ImageSource
    cache: TeacherCache | None = None
    """Whose teacher the student is compared with; None = labels are."""
    view: int = 0
    """The cache's view in which they are compared."""
    columns: tuple[int, ...] | None = None
    """The teacher's classes that the student has, None = all."""


def open_evaluation(
    run: Path | str,
    data: str | None,
    stack: ExitStack,
    *,
    weights: str = "best",
    cache: str | None = None,
    view: int = 0,
    limit: int | None = None,
    device: str = "auto",
) -> EvaluationInputs:
    """Open what ``kdtrain eval`` names; what must be closed goes onto the stack.

    Raises :class:`ConfigError` where there is no run and :class:`DataError` for data that does not fit it.
    """
    check_device_name(device)
    named = {"best": BEST, "last": LAST}
    path = at_hand(run, {named[weights]} if weights in named else set(), stack)
    config = RunFolder(path).stored_config()
    if config is None:
        raise ConfigError(f"{run} holds no run (no config.json)")
    data = data or config.settings.val_data
    if data is None:
        raise ConfigError(f"run {run} has no held-out data of its own: say which with --data")
    file = path / named[weights] if weights in named else Path(weights)
    shown = f"{run}/{named[weights]}" if weights in named else weights
    if not file.exists():
        raise ConfigError(f"there are no weights {shown}: --weights takes best, last or a FILE")
    looked = Looked(config, path, file, shown)
    if cache is not None:
        return _beside_teacher(looked, data, open_teacher(cache, stack), view, limit)
    source = open_source(data, config.decoding)
    check_held_out(source, config.class_plan, "eval")
    return EvaluationInputs(looked, source)


def _beside_teacher(
    run: Looked, data: str, cache: TeacherCache, view: int, limit: int | None
) -> EvaluationInputs:
    columns = comparable_columns(run.config, cache)
    cache.check_view(view)
    source = open_source(data, cache.manifest.input.decoding)
    if limit is not None:
        source = LimitedSource(source, limit)
    rows_of(cache, source)
    return EvaluationInputs(run, source, cache, view, columns)


def comparable_columns(config: RunConfig, cache: TeacherCache) -> tuple[int, ...] | None:
    """The teacher's classes that the student has, None = all; :class:`ConfigError` where none compare."""
    classes = cache.manifest.classes
    if config.teacher_classes is not None:
        raise ConfigError(
            "this student answers with the data's own classes, which are none of the teacher's, so there "
            "is no agreement to count; leave --cache out to evaluate it on labels"
        )
    ids = [facts.cache_id for facts in config.caches]
    if config.columns:
        if cache.cache_id not in ids:
            raise ConfigError(f"this student was not trained from cache {cache.location}")
        return config.columns[ids.index(cache.cache_id)]
    if classes != config.classes:
        raise ConfigError(f"cache {cache.location} has {classes} classes, the student has {config.classes}")
    return None
