"""From a configuration to the parts of a run: data, objective, student, optimiser, all checked to fit."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from cache_builder.datasets import ImageSource
from cache_builder.format import ConfigError
from cache_builder.tensors.decode import RecordDecoder, Restricted
from cache_builder.tensors.heads import HeadSpec
from cache_builder.tensors.normalise import Normalise
from cache_builder.views.recipes import Plain
from cache_builder.views.replay import Replay
from trainer.objective.objective import Objective
from trainer.replay.order import BatchPlan
from trainer.replay.training_data import class_counts, split, training_data
from trainer.replay.view_dataset import ViewDataset, require_labels
from trainer.run.blurred import warn_of_blurred_teachers
from trainer.run.classes import held_out_labels, plan_classes
from trainer.run.config import RunConfig
from trainer.run.device import make_accelerator, resolve_device, resolve_precision
from trainer.run.inputs import Inputs, open_inputs
from trainer.run.optim import make_optimizer
from trainer.run.requirements import check_objective
from trainer.run.resolve import learns_labels, resolve, workers_of
from trainer.run.settings import TrainSettings
from trainer.students.heads import build_student, head_of
from trainer.teacher.client import TeacherCache


@dataclass
class Run:
    """Everything a training loop holds."""

    config: RunConfig
    accelerator: Accelerator
    caches: tuple[TeacherCache, ...]
    """One per teacher; none where no loss looks at their records."""
    dataset: ViewDataset
    set_aside: ViewDataset | None
    """Training data that never trains the student: a loss learns from it."""
    held_out: ViewDataset | None
    objective: Objective
    decoders: nn.ModuleList
    """One ``RecordDecoder`` per cache."""
    head: HeadSpec | None
    """The student's auxiliary head."""
    normalise: Normalise
    model: nn.Module
    """The student, wrapped for precision and several devices."""
    optimizer: torch.optim.Optimizer
    plan: BatchPlan
    workers: int
    """Loader processes."""

    @property
    def student(self) -> nn.Module:
        """The bare student: what is evaluated and saved."""
        student: nn.Module = self.accelerator.unwrap_model(self.model)
        return student

    def card(self) -> dict[str, Any]:
        """What goes into a weights file: enough to use the student as a classifier, or as a teacher."""
        settings = self.config.settings
        return {
            "student": settings.student,
            "classes": self.config.classes,
            "class_names": self.config.class_names,
            "input_size": settings.image_size,
            "mean": settings.mean,
            "std": settings.std,
            "interpolation": self.config.interpolation,
            "crop_fraction": settings.eval_crop,
            "aux_head": None if self.head is None else self.head.model_dump(),
            "aux_classes": self.config.teacher_classes,
        }


def assemble(settings: TrainSettings, stack: ExitStack, inputs: Inputs | None = None) -> Run:
    """Check and build everything; what must be closed goes onto the stack.

    ``inputs``: of these settings, None = they are opened here.
    Raises :class:`ConfigError` and :class:`DataError` for parts that are wrong or do not fit together.
    """
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    accelerator = make_accelerator(device, precision, settings.patience_s)
    inputs = inputs or open_inputs(settings, stack)
    caches, source = inputs.caches, inputs.source
    classes = plan_classes(settings.classes, caches, source, learns_labels(settings))
    dataset = training_data(settings, caches, source, classes.choice)
    config = resolve(settings, caches, dataset, classes, device, precision)
    decided = config.settings
    set_aside = None
    if config.set_aside:
        dataset, set_aside = split(dataset, config.set_aside, decided.seed)
    counts = class_counts(dataset, config.classes) if dataset.labelled else None
    objective = Objective(config.objective, counts)
    check_objective(objective, config, dataset, accelerator.num_processes)
    if accelerator.is_main_process:
        warn_of_blurred_teachers(objective.losses, caches)
    held_out = _held_out(config, inputs.held_out)
    objective = objective.to(accelerator.device)
    model, optimizer = _student_and_optimizer(config, objective, accelerator)
    taught_by = caches if objective.needs_teacher else ()
    return Run(
        config=config,
        accelerator=accelerator,
        caches=taught_by,
        dataset=dataset,
        set_aside=set_aside,
        held_out=held_out,
        objective=objective,
        decoders=_decoders(taught_by, config).to(accelerator.device),
        head=head_of(decided),
        normalise=Normalise(decided.mean, decided.std).to(accelerator.device),
        model=model,
        optimizer=optimizer,
        plan=_plan(config, accelerator, dataset),
        workers=workers_of(settings, device, decided.image_size),
    )


def _decoders(caches: tuple[TeacherCache, ...], config: RunConfig) -> nn.ModuleList:
    """One a cache, of the teacher's classes that the student has."""
    decoders: list[nn.Module] = [RecordDecoder(cache.codec) for cache in caches]
    if config.columns and caches:
        decoders = [Restricted(*pair) for pair in zip(decoders, config.columns, strict=True)]
    return nn.ModuleList(decoders)


def _student_and_optimizer(
    config: RunConfig, objective: Objective, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The student on its device, wrapped for precision and several processes, and what trains it."""
    settings = config.settings
    torch.manual_seed(settings.seed)
    student = build_student(settings, config.classes, settings.image_size, config.teacher_classes)
    _seed_ranks(settings.seed, accelerator.process_index)
    _check_output(student, config)
    if accelerator.device.type == "cuda":
        student = student.to(memory_format=torch.channels_last)
    model, optimizer = accelerator.prepare(
        student, make_optimizer(student, settings, list(objective.joint_parameters()))
    )
    return model, optimizer


def _plan(config: RunConfig, accelerator: Accelerator, dataset: ViewDataset) -> BatchPlan:
    settings = config.settings
    return BatchPlan(
        samples=config.samples,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        views=config.view_count,
        seed=settings.seed,
        accumulation=settings.accumulation,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        views_per_sample=config.views_per_sample,
        partners=dataset.partner_positions if dataset.views.mixes else None,
    )


def _held_out(config: RunConfig, source: ImageSource | None) -> ViewDataset | None:
    if source is None:
        return None
    dataset = evaluation_data(source, config)
    require_labels(dataset, "--val-data")
    return dataset


def evaluation_data(source: ImageSource, config: RunConfig) -> ViewDataset:
    """A held-out data set as the student is to see it: centre crops, never the cache's views.

    Raises :class:`DataError` where its classes are not the student's.
    """
    labels = held_out_labels(source, config.class_plan)
    settings = config.settings
    crop = Plain(crop_fraction=settings.eval_crop)
    views = Replay(crop, 0, 1, len(source), settings.image_size, config.interpolation)
    return ViewDataset(source, views, labels=labels)


def _check_output(student: nn.Module, config: RunConfig) -> None:
    """One image through the student, in evaluation mode: it must give C logits."""
    size = config.settings.image_size
    was_training = student.training
    try:
        with torch.inference_mode():
            out = student.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"student {config.settings.student!r} cannot take images of {size} pixels: {error}"
        ) from error
    finally:
        student.train(was_training)
    shape = list(getattr(out, "shape", ()))
    if shape != [1, config.classes]:
        raise ConfigError(
            f"student {config.settings.student!r} gave an output of shape {shape}, expected logits "
            f"[1, {config.classes}]"
        )


def _seed_ranks(seed: int, rank: int) -> None:
    """Seed what the student may draw from, such as dropout; order and views do not depend on it."""
    torch.manual_seed(seed + rank)
    random.seed(seed + rank)
