"""From what a run was told to what it will do: every None and auto decided."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cache_builder.datasets import ImageSource
from cache_builder.format import ConfigError
from cache_builder.views import named
from trainer.client import TeacherCache
from trainer.config import CacheFacts, Precision, RunConfig, TrainConfig, Triple
from trainer.data import ViewDataset
from trainer.device import default_workers
from trainer.losses.recipes import Benchmark, Published
from trainer.objective import Objective, with_label_smoothing
from trainer.training_data import count_set_aside
from trainer.written_objective import benchmark_for, parse_objective, published

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
_SMALL_IMAGE = 64


def resolve(
    settings: TrainConfig,
    caches: Sequence[TeacherCache],
    dataset: ViewDataset,
    device: str,
    precision: Precision,
) -> RunConfig:
    """The configuration that a run keeps; raises :class:`ConfigError` for an objective it cannot read."""
    benchmark: Benchmark = benchmark_for(dataset.image_size)
    if settings.published != "auto":
        benchmark = settings.published
    terms = with_label_smoothing(parse_objective(settings.loss, benchmark), settings.label_smoothing)
    recipe = published(settings.loss, benchmark)
    objective = Objective(terms)
    set_aside = count_set_aside(dataset.labelled) if objective.held_out_losses else 0
    classes, class_names = _classes(caches, dataset.source)
    return RunConfig(
        product_version=version("kdcache"),
        settings=_decided(settings, caches, dataset, device, precision, recipe),
        objective=terms,
        objective_source=recipe.source if recipe else None,
        objective_benchmark=benchmark,
        classes=classes,
        class_names=class_names,
        samples=len(dataset) - set_aside,
        set_aside=set_aside,
        labelled=dataset.labelled,
        view_count=dataset.views.count,
        views_per_sample=objective.views,
        view_seed=dataset.views.seed,
        view_recipe=named(dataset.views.recipe),
        interpolation=dataset.views.interpolation,
        caches=tuple(map(_facts, caches)),
    )


def _decided(
    settings: TrainConfig,
    caches: Sequence[TeacherCache],
    dataset: ViewDataset,
    device: str,
    precision: Precision,
    recipe: Published | None,
) -> TrainConfig:
    """The settings with every None and auto replaced."""
    teacher = caches[0].manifest.teacher if caches else None
    sgd = settings.optimizer == "sgd"
    small = dataset.image_size <= _SMALL_IMAGE
    defaults: dict[str, Any] = {
        "lr": 0.1 * settings.batch_size / 256 if sgd else 1e-3,
        "weight_decay": 1e-4 if sgd else 0.05,
        "warmup_epochs": settings.epochs / 20,
        "eval_crop": 1.0 if small else 0.875,
        "mean": teacher.mean if teacher else IMAGENET_MEAN,
        "std": teacher.std if teacher else IMAGENET_STD,
        "workers": default_workers(device, dataset.image_size),
        "aux_head": recipe.aux_head if recipe else None,
    }
    if not caches:
        defaults["views"] = dataset.views.count
    update = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    update |= {"device": device, "precision": precision, "image_size": dataset.image_size}
    return settings.model_copy(update=update)


def _classes(caches: Sequence[TeacherCache], source: ImageSource) -> tuple[int, tuple[str, ...] | None]:
    if caches:
        named_ones = [cache.manifest.data.class_names for cache in caches]
        return caches[0].manifest.data.classes, next(filter(None, [*named_ones, source.class_names]), None)
    if source.class_names is None:
        raise ConfigError(f"{source.spec} has no classes to learn: use a folder per class, or a cache")
    return len(source.class_names), source.class_names


def _facts(cache: TeacherCache) -> CacheFacts:
    teacher = cache.manifest.teacher
    return CacheFacts(
        cache_id=cache.cache_id,
        name=cache.manifest.name,
        teacher=f"{teacher.spec}, weights {teacher.weights}",
    )
