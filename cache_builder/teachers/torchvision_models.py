"""Teachers from torchvision: any classifier by its name, some by a short one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torchvision import models

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers.known import ALIASES, unknown_teacher
from cache_builder.teachers.preprocessing import Preprocessing
from cache_builder.teachers.teacher import Teacher, TeacherRequest, freeze, wake_head, with_state
from cache_builder.teachers.weights import LOADING_ERRORS, StateDict, classes_in, read_weights

IMAGENET_CLASSES = 1000


def names() -> list[str]:
    """torchvision's classifiers."""
    return list(models.list_models(module=models))


def open_torchvision(name: str, request: TeacherRequest) -> Teacher:
    """A torchvision classifier with published weights, random ones, or a file's."""
    resolved = ALIASES.get(name, name)
    if resolved not in names():
        raise ConfigError(unknown_teacher(name))
    published = models.get_model_weights(resolved).DEFAULT
    preprocessing = _preprocessing(published)
    spec = f"torchvision:{resolved}"
    if request.weights == "default":
        categories = tuple(published.meta["categories"])
        model = _download(resolved, published)
        return freeze(spec, model, str(published), preprocessing, categories, len(categories))
    if request.weights == "random":
        torch.manual_seed(request.seed)
        classes = request.data_classes or IMAGENET_CLASSES
        model = wake_head(_build(resolved, classes))
        return freeze(spec, model, f"random (seed {request.seed})", preprocessing, None, classes)
    weights = read_weights(request.weights)
    model = _build(resolved, IMAGENET_CLASSES)
    weights = weights.fitted(model)
    classes = classes_in(weights.state, model, IMAGENET_CLASSES) or IMAGENET_CLASSES
    side = _side_of(weights.state, model, preprocessing.input_size)
    if classes != IMAGENET_CLASSES or side != preprocessing.input_size:
        model = _build(resolved, classes, side)
    preprocessing = replace(preprocessing, input_size=side)
    if resolved in _RENORMALISING and "student" not in weights.metadata:
        weights = replace(weights, origin=f"{weights.origin} ({_RENORMALISED})")
        cast("Any", model).transform_input = True
    return with_state(spec, model, weights, preprocessing.assumed_for_file(), classes)


# torchvision's published weights of these expect pictures that the model normalises once more; a state dict
# does not say so. kdtrain's own students are built without, and say that they are students.
_RENORMALISING = ("googlenet", "inception_v3")
_RENORMALISED = "transform_input=True, as torchvision builds it for published weights"


def _build(name: str, classes: int, side: int | None = None) -> nn.Module:
    # GoogLeNet and Inception warn about their own initialisation unless told.
    options: dict[str, Any] = {"init_weights": True} if name in _RENORMALISING else {}
    if side is not None and name.startswith("vit_"):
        options["image_size"] = side
    return cast("nn.Module", models.get_model(name, weights=None, num_classes=classes, **options))


def _side_of(state: StateDict, model: nn.Module, usual: int) -> int:
    """Side of the pictures that a vision transformer was saved for, from its places; else the usual one."""
    places = state.get("encoder.pos_embedding")
    patch = getattr(model, "patch_size", None)
    if places is None or places.ndim != 3 or not isinstance(patch, int):
        return usual
    across = math.isqrt(places.shape[1] - 1)
    return across * patch if across * across == places.shape[1] - 1 else usual


def _preprocessing(weights: Any) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        input_size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_fraction=min(1.0, preset.crop_size[0] / preset.resize_size[0]),
        origin="from torchvision's published weights of this model",
    )


def _download(name: str, weights: Any) -> nn.Module:
    try:
        return cast("nn.Module", models.get_model(name, weights=weights))
    except OSError as error:
        raise DataError(
            f"the published weights of {name} are not on this machine and could not be fetched ({error}); "
            "give --weights FILE, or --weights random for a trial"
        ) from error
    except LOADING_ERRORS as error:
        raise DataError(
            f"the published weights of {name} in {torch.hub.get_dir()}/checkpoints are damaged: remove them"
        ) from error
