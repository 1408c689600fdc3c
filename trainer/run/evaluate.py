"""Evaluating a finished (or running) run: held-out accuracy, and agreement with its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.datasets.orders import BetterOrder, OrderTally
from cache_builder.format import ConfigError
from cache_builder.tensors.decode import RecordDecoder
from trainer.replay.batches import make_loader
from trainer.replay.data import ReplayDataset, require_labels
from trainer.run.assemble import evaluation_data
from trainer.run.checkpoint import load_weights
from trainer.run.classes import Restricted
from trainer.run.config import RunConfig
from trainer.run.device import Normalise, default_workers, make_accelerator, resolve_device, resolve_precision
from trainer.run.metrics import Evaluator
from trainer.run.run_folder import BEST, DRIFT, LAST, RunFolder
from trainer.students.heads import build_student
from trainer.teacher.client import TeacherCache

_BATCH = 256


@dataclass(frozen=True)
class EvaluationResult:
    """What ``kdtrain eval`` prints."""

    weights: str
    """The file that was evaluated."""
    data: str
    samples: int
    top1: float | None = None
    """Accuracy, 0..1."""
    top5: float | None = None
    nll: float | None = None
    """Mean negative log-likelihood of the label, in nats."""
    order: BetterOrder | None = None
    """Another numbering of the data's classes by which the student is right far more often."""
    view: int | None = None
    """The cache's view in which student and teacher were compared."""
    agreement: float | None = None
    """Share of samples whose most likely class is the teacher's, 0..1."""


def evaluate_run(
    path: Path,
    data: str | None,
    *,
    weights: str = "best",
    cache: str | None = None,
    view: int = 0,
    limit: int | None = None,
    device: str = "auto",
) -> EvaluationResult:
    """Evaluate the weights of a run: centre crops of ``data`` against its labels.

    With ``cache``: ``data`` (the cache's data set, or a part) as the teacher saw it in one view, against the
    teacher's answer; ``limit``: its first N images. Raises :class:`ConfigError` where there is no run and
    :class:`DataError` for data or weights that do not fit.
    """
    folder = RunFolder(path)
    config = folder.stored_config()
    if config is None:
        raise ConfigError(f"{path} holds no run (no config.json)")
    data = data or config.settings.val_data
    if data is None:
        raise ConfigError(f"run {path} has no held-out data of its own: say which with --data")
    file = {"best": path / BEST, "last": path / LAST}.get(weights, Path(weights))
    if not file.exists():
        raise ConfigError(f"there are no weights {file}: --weights takes best, last or a FILE")
    student = _Student(config, file, device)
    if cache is None:
        return student.against_labels(data)
    return student.against_teacher(data, cache, view, limit)


class _Student:
    """The student of a run, with weights, on a device."""

    def __init__(self, config: RunConfig, file: Path, device: str) -> None:
        settings = config.settings
        self._config, self._file = config, file
        device = resolve_device(device)
        self._accelerator = make_accelerator(device, resolve_precision("auto", device))
        self._device = self._accelerator.device
        student = build_student(settings, config.classes, settings.image_size, config.teacher_classes)
        load_weights(file, student)
        # For evaluation: no DDP around it, only the precision.
        prepared = self._accelerator.prepare_model(student.eval().to(self._device), evaluation_mode=True)
        self._model: nn.Module = prepared
        self._normalise = Normalise(settings.mean, settings.std).to(self._device)
        self._workers = default_workers(device, settings.image_size)

    def against_labels(self, data: str) -> EvaluationResult:
        dataset = evaluation_data(data, self._config)
        require_labels(dataset, "eval")
        by_position = dataset.source.class_names if self._config.class_names is None else None
        order = OrderTally(by_position, self._config.classes, views=1)
        evaluator = Evaluator(dataset, self._config.classes, _BATCH, self._workers, self._accelerator, order)
        found = evaluator.run(self._model, self._normalise)
        return EvaluationResult(
            str(self._file), data, len(dataset), found.top1, found.top5, found.nll, order.better()
        )

    def against_teacher(self, data: str, location: str, view: int, limit: int | None) -> EvaluationResult:
        with TeacherCache.open(location) as cache:
            columns = self._comparable(cache)
            size, drift = self._config.settings.image_size, self._config.settings.out / DRIFT
            source = open_source(data, cache.manifest.data.decoding)
            if limit is not None:
                source = LimitedSource(source, limit)
            dataset = ReplayDataset(cache, source, size, drift_folder=drift)
            agreeing = self._count_agreeing(dataset, cache, view, columns)
        share = agreeing / len(dataset)
        return EvaluationResult(str(self._file), data, len(dataset), view=view, agreement=share)

    def _comparable(self, cache: TeacherCache) -> tuple[int, ...] | None:
        """The teacher's classes that the student has, None = all; :class:`ConfigError` where none compare."""
        config, classes = self._config, cache.manifest.data.classes
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
            raise ConfigError(
                f"cache {cache.location} has {classes} classes, the student has {config.classes}"
            )
        return None

    def _count_agreeing(
        self, dataset: ReplayDataset, cache: TeacherCache, view: int, columns: tuple[int, ...] | None
    ) -> int:
        decoder: nn.Module = RecordDecoder(cache.manifest)
        decoder = (Restricted(decoder, columns) if columns else decoder).to(self._device)
        pairs = [(position, view) for position in range(len(dataset))]
        batches = [pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH)]
        agreeing = 0
        for batch in make_loader(dataset, batches, self._workers, pin_memory=False):
            assert isinstance(batch.row, Tensor)
            records = torch.from_numpy(cache.fetch(view, batch.row.numpy()))
            teacher = decoder(records.to(self._device))
            with torch.inference_mode():
                logits = self._model(self._normalise(batch.image.to(self._device)))
            agreeing += int((logits.argmax(1) == teacher.argmax(1)).sum())
        return agreeing
