"""From a configuration to the parts of a run: data, objective, student, optimiser, all checked to fit."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import ConfigError, DataError
from cache_builder.views import parse_recipe
from cache_builder.views.recipes import Plain
from trainer.client import TeacherCache
from trainer.config import RunConfig, TrainConfig, Triple
from trainer.data import ReplayDataset, ViewDataset, Views, natural_size, require_labels
from trainer.decode import RecordDecoder
from trainer.device import Normalise, make_accelerator, resolve_device, resolve_precision
from trainer.objective import Objective
from trainer.optim import make_optimizer
from trainer.order import BatchPlan
from trainer.resolve import resolve
from trainer.run_folder import DRIFT
from trainer.students import make_student


@dataclass
class Run:
    """Everything a training loop holds."""

    config: RunConfig
    accelerator: Accelerator
    cache: TeacherCache | None
    """None where no loss looks at a teacher's records."""
    dataset: ViewDataset
    held_out: ViewDataset | None
    objective: Objective
    decoder: RecordDecoder | None
    normalise: Normalise
    model: nn.Module
    """The student, wrapped for precision and several devices."""
    optimizer: torch.optim.Optimizer
    plan: BatchPlan

    @property
    def student(self) -> nn.Module:
        """The bare student: what is evaluated and saved."""
        student: nn.Module = self.accelerator.unwrap_model(self.model)
        return student

    @property
    def workers(self) -> int:
        """Loader processes."""
        workers = self.config.settings.workers
        assert workers is not None
        return workers

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
        }


def assemble(settings: TrainConfig, stack: ExitStack) -> Run:
    """Open, check and build everything; what must be closed goes onto the stack.

    Raises :class:`ConfigError` and :class:`DataError` for parts that are wrong or do not fit together.
    """
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    accelerator = make_accelerator(device, precision)
    cache = None
    if settings.cache is not None:
        cache = stack.enter_context(TeacherCache.open(settings.cache, patience_s=settings.patience_s))
    dataset = _training_data(settings, cache)
    config = resolve(settings, cache, dataset, device, precision)
    settings = config.settings
    objective = Objective(config.objective)
    _check_objective(objective, cache, dataset)
    held_out = _held_out(config)
    torch.manual_seed(settings.seed)
    student = make_student(settings.student, config.classes, dataset.image_size)
    _seed_ranks(settings.seed, accelerator.process_index)
    _check_output(student, config)
    if accelerator.device.type == "cuda":
        student = student.to(memory_format=torch.channels_last)
    model, optimizer = accelerator.prepare(student, make_optimizer(student, settings))
    taught = objective.needs_teacher and cache is not None
    return Run(
        config=config,
        accelerator=accelerator,
        cache=cache if taught else None,
        dataset=dataset,
        held_out=held_out,
        objective=objective.to(accelerator.device),
        decoder=RecordDecoder(cache.manifest).to(accelerator.device) if taught and cache else None,
        normalise=Normalise(_triple(settings.mean), _triple(settings.std)).to(accelerator.device),
        model=model,
        optimizer=optimizer,
        plan=BatchPlan(
            samples=len(dataset),
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            views=config.view_count,
            seed=settings.seed,
            accumulation=settings.accumulation,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        ),
    )


def _training_data(settings: TrainConfig, cache: TeacherCache | None) -> ViewDataset:
    source = open_source(settings.data)
    if settings.limit is not None:
        source = LimitedSource(source, settings.limit)
    if cache is not None:
        if settings.recipe or settings.views:
            raise ConfigError(
                "--recipe and --views are the cache's: leave them out, or train without --cache"
            )
        return ReplayDataset(
            cache,
            source,
            settings.image_size,
            allow_render_drift=settings.allow_render_drift,
            drift_folder=settings.out / DRIFT,
        )
    if settings.recipe is None:
        raise ConfigError("without --cache, say how images are augmented: --recipe pad-crop-flip or rrc-flip")
    recipe = parse_recipe(settings.recipe)
    views = settings.views or recipe.max_views() or settings.epochs
    if recipe.max_views() is not None and views > (recipe.max_views() or 0):
        raise ConfigError(f"recipe {settings.recipe!r} has {recipe.max_views()} view(s), not {views}")
    size = settings.image_size or natural_size(source)
    return ViewDataset(source, Views(recipe, settings.seed, views, "bilinear"), size)


def _check_objective(objective: Objective, cache: TeacherCache | None, dataset: ViewDataset) -> None:
    for loss in objective.losses:
        if loss.needs_teacher and cache is None:
            raise ConfigError(f"loss {loss.name!r} needs a teacher: give --cache, or --loss ce for none")
        if loss.needs_labels:
            require_labels(dataset, f"loss {loss.name!r}")


def _held_out(config: RunConfig) -> ViewDataset | None:
    settings = config.settings
    if settings.val_data is None:
        return None
    dataset = evaluation_data(settings.val_data, config)
    require_labels(dataset, "--val-data")
    return dataset


def evaluation_data(spec: str, config: RunConfig) -> ViewDataset:
    """A held-out data set as the student is to see it: centre crops, never the cache's views.

    Raises :class:`DataError` where its classes are not the student's.
    """
    source = open_source(spec)
    if source.class_names is not None and len(source.class_names) != config.classes:
        raise DataError(
            f"{source.spec} has {len(source.class_names)} classes, the student has {config.classes}: "
            "evaluate on data of the same classes"
        )
    settings = config.settings
    assert settings.eval_crop is not None
    assert settings.image_size is not None
    views = Views(Plain(crop_fraction=settings.eval_crop), 0, 1, config.interpolation)
    return ViewDataset(source, views, settings.image_size)


def _check_output(student: nn.Module, config: RunConfig) -> None:
    """One image through the student, in evaluation mode: it must give C logits."""
    size = config.settings.image_size or 0
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


def _triple(value: Triple | None) -> Triple:
    assert value is not None
    return value
