"""Teachers from ``package.module:factory``: any callable that returns a classifier."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from cache_builder.console.dotted import failure, import_dotted
from cache_builder.format.errors import ConfigError
from cache_builder.teachers.described_files import described_by
from cache_builder.teachers.imagenet_heads import imagenet_names_of
from cache_builder.teachers.preprocessing import Preprocessing, described
from cache_builder.teachers.teacher import Teacher, TeacherRequest, freeze, with_state
from cache_builder.teachers.weights import read_weights

Factory = Callable[..., object]


def open_factory(name: str, request: TeacherRequest) -> Teacher:
    """Call the factory (with ``num_classes`` where it takes that) and load ``--weights`` if it is a file."""
    factory = import_factory(name)
    torch.manual_seed(request.seed)
    if request.weights in ("default", "random"):
        what = "the factory's own" if request.weights == "default" else f"random (seed {request.seed})"
        model, wanted = _made(name, factory, request.data_classes, request.fallback)
        names = imagenet_names_of(model) if request.weights == "default" else None
        return freeze(name, model, what, wanted, names)
    weights = read_weights(request.weights)
    class_names = weights.metadata.get("class_names")
    classes = len(class_names) if class_names else request.data_classes
    model, wanted = _made(name, factory, classes, request.fallback)
    return with_state(name, model, weights, wanted)


def import_factory(name: str) -> Factory:
    """The callable that ``package.module:factory`` names; also found in the working directory."""
    factory = import_dotted(name, "teacher")
    if not callable(factory):
        raise ConfigError(f"teacher {name!r} is not callable; expected package.module:factory")
    return cast("Factory", factory)


def _made(
    name: str, factory: Factory, classes: int | None, usual: Preprocessing
) -> tuple[nn.Module, Preprocessing]:
    """The factory's model, and how it wants its pictures where it or the model says so.

    A factory returns a model, or (model, preprocessing); a model may carry ``preprocessing``, or timm's
    ``pretrained_cfg``. Preprocessing is a ``Preprocessing``, a mapping of its fields or of timm's, or a
    torchvision preset as ``weights.transforms()`` gives.
    """
    made = _call(name, factory, classes)
    model, said = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name!r} returned {type(model).__name__}, expected a torch.nn.Module")
    origin = "from what the factory returned"
    for attribute in ("preprocessing", "pretrained_cfg", "default_cfg"):
        if said is None and getattr(model, attribute, None) is not None:
            said, origin = getattr(model, attribute), f"from the model's {attribute}"
    try:
        if said is None:
            return model, usual.assumed_of_silent_model()
        return model, _as_preprocessing(said, usual, origin)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise ConfigError(f"{name!r}: its preprocessing cannot be understood: {error}") from error


def _as_preprocessing(said: Any, usual: Preprocessing, origin: str) -> Preprocessing:
    if isinstance(said, Preprocessing):
        return replace(said, origin=origin)
    if isinstance(said, Mapping):
        known = {key: said[key] for key in vars(usual) if key in said}
        fields = described_by(said) or known
        size = fields.get("input_size")
        if isinstance(size, list | tuple):
            fields = fields | {"input_size": size[-1]}
        return described(usual, fields | {"origin": origin})
    crop, resize = said.crop_size[0], said.resize_size[0]  # a preset of torchvision
    fields = {
        "input_size": crop,
        "mean": said.mean,
        "std": said.std,
        "interpolation": said.interpolation.value,
    }
    return described(usual, fields | {"crop_fraction": min(1.0, crop / resize), "origin": origin})


def _call(name: str, factory: Factory, classes: int | None) -> object:
    try:
        takes_classes = "num_classes" in inspect.signature(factory).parameters
        model = factory(num_classes=classes) if takes_classes and classes else factory()
    except Exception as error:
        raise ConfigError(f"{name!r} failed: {failure(error)}") from error
    return model
