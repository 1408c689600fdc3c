"""Teachers from torchvision: any classifier by its name, some by a short one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torchvision import models

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.names import unknown_name
from cache_builder.teachers.preprocessing import Preprocessing
from cache_builder.teachers.teacher import Teacher, TeacherRequest, freeze, wake_head, with_state
from cache_builder.teachers.weights import LOADING_ERRORS, classes_in, read_weights

# Short names; every torchvision classifier also goes by its own name.
ALIASES: dict[str, str] = {
    "vit_b": "vit_b_16",
    "vit_l": "vit_l_16",
    "vit_h": "vit_h_14",
    "swinv2_b": "swin_v2_b",
    "convnext_b": "convnext_base",
    "convnext_l": "convnext_large",
    "regnet_16gf": "regnet_y_16gf",
    "effnet_b7": "efficientnet_b7",
    "effnetv2_l": "efficientnet_v2_l",
}

IMAGENET_CLASSES = 1000


def names() -> list[str]:
    """torchvision's classifiers."""
    return list(models.list_models(module=models))


def open_torchvision(name: str, request: TeacherRequest) -> Teacher:
    """A torchvision classifier with published weights, random ones, or a file's."""
    resolved = ALIASES.get(name, name)
    if resolved not in names():
        raise ConfigError(
            unknown_name("teacher", name, [*ALIASES, *names()]) + " (or timm:NAME, or package.module:factory)"
        )
    published = models.get_model_weights(resolved).DEFAULT
    preprocessing = _preprocessing(published)
    spec = f"torchvision:{resolved}"
    if request.weights == "default":
        categories = tuple(published.meta["categories"])
        return freeze(spec, _download(resolved, published), str(published), preprocessing, categories)
    if request.weights == "random":
        torch.manual_seed(request.seed)
        model = wake_head(_build(resolved, request.data_classes or IMAGENET_CLASSES))
        return freeze(spec, model, f"random (seed {request.seed})", preprocessing, None)
    state, metadata = read_weights(request.weights_path)
    model = _build(resolved, IMAGENET_CLASSES)
    classes = classes_in(state, model, IMAGENET_CLASSES)
    if classes not in (None, IMAGENET_CLASSES):
        model = _build(resolved, classes)
    return with_state(spec, model, state, request.weights_path, preprocessing, metadata)


def _build(name: str, classes: int) -> nn.Module:
    # GoogLeNet and Inception warn about their own initialisation unless told.
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return cast("nn.Module", models.get_model(name, weights=None, num_classes=classes, **options))


def _preprocessing(weights: Any) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        input_size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_fraction=min(1.0, preset.crop_size[0] / preset.resize_size[0]),
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
