"""From what a run was told to what it will do: every None and auto decided."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cache_builder.console.options import Triple
from cache_builder.datasets import decoding_of
from cache_builder.format import ConfigError
from cache_builder.views import named
from trainer.losses import Loss
from trainer.objective.objective import Objective
from trainer.objective.published import Benchmark, Published
from trainer.objective.terms import Term, Terms, with_label_smoothing
from trainer.objective.written import benchmark_for, parse_objective, published
from trainer.replay.training_data import count_set_aside
from trainer.replay.view_dataset import ViewDataset
from trainer.run.classes import ClassChoice, ClassPlan
from trainer.run.config import CacheFacts, DecidedSettings, Precision, RunConfig
from trainer.run.device import default_workers
from trainer.run.settings import TrainSettings
from trainer.teacher.client import TeacherCache

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
_SMALL_IMAGE = 64
_BATCH_SIZE = 128


def resolve(
    settings: TrainSettings,
    caches: Sequence[TeacherCache],
    dataset: ViewDataset,
    classes: ClassPlan,
    device: str,
    precision: Precision,
) -> RunConfig:
    """The configuration that a run keeps; raises :class:`ConfigError` for an objective it cannot read."""
    benchmark: Benchmark = benchmark_for(dataset.image_size)
    if settings.published != "auto":
        benchmark = settings.published
    terms = with_label_smoothing(parse_objective(settings.loss, benchmark), settings.label_smoothing)
    recipe = published(settings.loss, benchmark)
    if classes.choice == "both":
        terms = for_two_heads(terms)
    objective = Objective(terms)
    set_aside = count_set_aside(dataset.labelled) if objective.held_out_losses else 0
    samples = len(dataset) - set_aside
    batch_size = settings.batch_size or usual_batch_size(samples, settings.accumulation)
    settings = settings.model_copy(update={"batch_size": batch_size})
    needs_second = classes.choice == "both" and objective.needs_aux_head
    return RunConfig(
        product_version=version("kdcache"),
        settings=_decided(settings, caches, dataset, device, precision, recipe, classes.choice, needs_second),
        objective=terms,
        objective_source=recipe.source if recipe else None,
        objective_benchmark=benchmark,
        classes=classes.count,
        class_names=classes.names,
        class_choice=classes.choice,
        columns=classes.columns,
        teacher_classes=classes.teacher_classes,
        label_names=dict(classes.label_names),
        samples=samples,
        set_aside=set_aside,
        labelled=dataset.labelled,
        view_count=dataset.views.count,
        views_per_sample=objective.views,
        view_seed=dataset.views.seed,
        view_recipe=named(dataset.views.recipe),
        interpolation=dataset.views.interpolation,
        decoding=caches[0].manifest.input.decoding if caches else decoding_of(dataset.source) or 1,
        caches=tuple(map(_facts, caches)),
    )


def usual_batch_size(samples: int, accumulation: int) -> int:
    """Images of a step where nobody said: 128, or what there is of whole micro-batches."""
    return max(1, min(_BATCH_SIZE, samples) // accumulation) * accumulation


def _decided(
    settings: TrainSettings,
    caches: Sequence[TeacherCache],
    dataset: ViewDataset,
    device: str,
    precision: Precision,
    recipe: Published | None,
    choice: ClassChoice,
    needs_second: bool,
) -> DecidedSettings:
    """The settings, whose batch size is decided, with every None and auto replaced.

    ``needs_second``: a head of its own is for the teacher's classes.
    """
    assert settings.batch_size is not None
    seen = caches[0].manifest.input if caches else None
    sgd = settings.optimizer == "sgd"
    small = dataset.image_size <= _SMALL_IMAGE
    defaults: dict[str, Any] = {
        "lr": 0.1 * settings.batch_size / 256 if sgd else 1e-3,
        "weight_decay": 1e-4 if sgd else 0.05,
        "warmup_epochs": settings.epochs / 20,
        "eval_crop": 1.0 if small else 0.875,
        "mean": seen.mean if seen else IMAGENET_MEAN,
        "std": seen.std if seen else IMAGENET_STD,
        "aux_head": (recipe.aux_head if recipe else None) or ("linear" if needs_second else None),
        "classes": choice if caches else None,
    }
    if not caches:
        defaults["views"] = dataset.views.count
    asked = settings.model_dump()
    decided = {name: value for name, value in defaults.items() if asked[name] is None}
    decided |= {"device": device, "precision": precision, "image_size": dataset.image_size}
    decided["workers"] = workers_of(settings, device, dataset.image_size)
    return DecidedSettings.model_validate(asked | decided)


def workers_of(settings: TrainSettings, device: str, image_size: int) -> int:
    """Loader processes of a run."""
    return default_workers(device, image_size) if settings.workers is None else settings.workers


def learns_labels(settings: TrainSettings) -> bool:
    """Whether a loss looks at labels alone, so that the student learns the data's own classes by it.

    Not where heads are the method's own business.
    """
    terms = parse_objective(settings.loss, "imagenet")
    if settings.aux_head or any(term.head == "aux" for term in terms):
        return False
    return any(loss.needs_labels and not loss.needs_teacher for loss in Objective(terms).losses)


def for_two_heads(terms: Terms) -> Terms:
    """The terms with the head each looks at: the teacher's classes are not those of the labels.

    Raises :class:`ConfigError` for a loss that looks at both at once, and where nothing trains the main head.
    """
    placed = [_placed(term, loss) for term, loss in zip(terms, Objective(terms).losses, strict=True)]
    if all(term.head == "aux" for term in placed):
        raise ConfigError(
            "--classes both: nothing trains the head of the data's own classes; add a loss of the labels, as "
            f"in --loss 'ce*1 + {placed[0].name}*1'"
        )
    return tuple(placed)


def _placed(term: Term, loss: Loss) -> Term:
    if loss.needs_teacher and loss.needs_labels:
        raise ConfigError(
            f"--classes both: loss {loss.name!r} compares labels with the teacher's logits, but the labels "
            "are none of the teacher's classes; use one of the teacher alone beside ce, as in "
            "--loss 'ce*1 + kd*1'"
        )
    return term.model_copy(update={"head": "aux" if loss.needs_teacher else "main"})


def _facts(cache: TeacherCache) -> CacheFacts:
    teacher = cache.manifest.teacher
    return CacheFacts(
        cache_id=cache.cache_id,
        name=cache.manifest.name,
        teacher=f"{teacher.spec}, weights {teacher.weights}",
    )
