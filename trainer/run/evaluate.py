"""Evaluating a finished (or running) run: held-out accuracy, and agreement with its teacher."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cache_builder.datasets.orders import BetterOrder, OrderTally
from cache_builder.tensors.decode import RecordDecoder, Restricted
from cache_builder.tensors.normalise import Normalise
from trainer.replay.batches import make_loader
from trainer.replay.view_dataset import ReplayDataset
from trainer.run.assemble import evaluation_data
from trainer.run.checkpoint import load_weights
from trainer.run.device import default_workers, make_accelerator, resolve_device, resolve_precision
from trainer.run.evaluation_inputs import EvaluationInputs, open_evaluation
from trainer.run.metrics import Evaluator
from trainer.run.run_folder import DRIFT
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
    with ExitStack() as stack:
        inputs = open_evaluation(
            path, data, stack, weights=weights, cache=cache, view=view, limit=limit, device=device
        )
        return evaluate(inputs, device)


def evaluate(inputs: EvaluationInputs, device: str) -> EvaluationResult:
    """Evaluate what was opened."""
    student = _Student(inputs, device)
    return student.against_labels() if inputs.cache is None else student.against_teacher(inputs.cache)


class _Student:
    """The student of a run, with weights, on a device."""

    def __init__(self, inputs: EvaluationInputs, device: str) -> None:
        config, file = inputs.run.config, inputs.run.weights
        settings = config.settings
        self._inputs, self._config, self._run = inputs, config, inputs.run
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

    def against_labels(self) -> EvaluationResult:
        dataset = evaluation_data(self._inputs.source, self._config)
        by_position = dataset.source.class_names if self._config.class_names is None else None
        order = OrderTally(by_position, self._config.classes, views=1)
        evaluator = Evaluator(dataset, self._config.classes, _BATCH, self._workers, self._accelerator, order)
        found = evaluator.run(self._model, self._normalise)
        return EvaluationResult(
            weights=self._run.weights_name,
            data=dataset.source.spec,
            samples=len(dataset),
            top1=found.top1,
            top5=found.top5,
            nll=found.nll,
            order=order.better(),
        )

    def against_teacher(self, cache: TeacherCache) -> EvaluationResult:
        inputs, settings = self._inputs, self._config.settings
        dataset = ReplayDataset(
            cache, inputs.source, settings.image_size, drift_folder=self._run.folder / DRIFT
        )
        share = self._count_agreeing(dataset, cache, inputs.view, inputs.columns) / len(dataset)
        return EvaluationResult(
            self._run.weights_name, dataset.source.spec, len(dataset), view=inputs.view, agreement=share
        )

    def _count_agreeing(
        self, dataset: ReplayDataset, cache: TeacherCache, view: int, columns: tuple[int, ...] | None
    ) -> int:
        decoder: nn.Module = RecordDecoder(cache.codec)
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
