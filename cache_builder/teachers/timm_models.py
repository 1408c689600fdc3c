"""Teachers from timm: ``timm:NAME``, with timm's own preprocessing and published weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers.hub import one_try
from cache_builder.teachers.imagenet_heads import names_of_set
from cache_builder.teachers.known import TIMM, unknown_timm
from cache_builder.teachers.preprocessing import INTERPOLATIONS, Preprocessing
from cache_builder.teachers.teacher import Teacher, TeacherRequest, freeze, wake_head, with_state
from cache_builder.teachers.weights import StateDict, classes_in, read_weights, weights_digest

PREFIX = TIMM


def open_timm(spec: str, request: TeacherRequest) -> Teacher:
    """A timm classifier with published weights, random ones, or a file's."""
    timm = _timm(spec)
    name = spec.removeprefix(PREFIX)
    _check_name(timm, name)
    return _resized(_opened(timm, name, request), request.input_size)


def _opened(timm: ModuleType, name: str, request: TeacherRequest) -> Teacher:
    spec = PREFIX + name
    if request.weights == "default":
        model = _download(timm, name)
        seen, classes = _preprocessing(timm, model, name), _classes(model)
        return freeze(spec, model, _published(model), seen, names_of_set(classes), classes)
    torch.manual_seed(request.seed)
    if request.weights == "random":
        model = wake_head(_build(timm, name, request.data_classes))
        origin = f"random (seed {request.seed})"
        return freeze(spec, model, origin, _preprocessing(timm, model, name), None, _classes(model))
    weights = read_weights(request.weights)
    model = _build(timm, name, None)
    usual = int(cast("Any", model).num_classes)
    weights = weights.fitted(model)
    classes = classes_in(weights.state, model, usual)
    if classes not in (None, usual):
        model = _build(timm, name, classes)
    side = weights.metadata.get("input_size") or _side_of(weights.state, model)
    resized = _set_input_size(model, side)
    wanted = _preprocessing(timm, model, name)
    if resized and isinstance(side, int):
        wanted = replace(wanted, input_size=side)
    return with_state(spec, model, weights, wanted.assumed_for_file(), _classes(model))


def _classes(model: nn.Module) -> int | None:
    """Logits by timm's own account; None for a model without a classifier, which answers with features."""
    return int(cast("Any", model).num_classes) or None


def _side_of(state: StateDict, model: nn.Module) -> int | None:
    """Side of the pictures that a transformer was saved for, where it is not the model's own."""
    own, stored = getattr(model, "pos_embed", None), state.get("pos_embed")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if own is None or stored is None or stored.ndim != 3 or stored.shape == own.shape or not patch:
        return None
    across = math.isqrt(stored.shape[1] - int(getattr(model, "num_prefix_tokens", 1)))
    return int(across * patch[0])


def _timm(spec: str) -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(f"teacher {spec} needs {error.name}: pip install 'kdcache[timm]'") from error
    return timm


def _check_name(timm: ModuleType, name: str) -> None:
    """A name is an architecture, or one with the tag of its weights: ``resnet50`` or ``resnet50.a1_in1k``."""
    architectures, published = timm.list_models(), timm.list_pretrained()
    if name in architectures or name in published:
        return
    architecture = name.partition(".")[0]
    if architecture not in architectures:
        raise ConfigError(unknown_timm(name, architectures))
    tags = [known for known in published if known.partition(".")[0] == architecture]
    if not tags:
        raise ConfigError(f"timm publishes no weights of {architecture}, so {name!r} names none")
    raise ConfigError(f"unknown weights {name!r}: timm has {', '.join(tags)}")


def _build(timm: ModuleType, name: str, classes: int | None) -> nn.Module:
    options = {"num_classes": classes} if classes else {}
    return cast("nn.Module", timm.create_model(name, pretrained=False, **options))


def _download(timm: ModuleType, name: str) -> nn.Module:
    if not timm.is_model_pretrained(name.partition(".")[0]):
        raise ConfigError(
            f"timm publishes no weights of {name}: give --weights FILE, or --weights random for a trial"
        )
    try:
        with one_try():
            return cast("nn.Module", timm.create_model(name, pretrained=True))
    except Exception as error:  # whatever the hub's client, the network or a damaged file brings
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"the published weights of timm:{name} are not on this machine and could not be fetched, or are "
            f"damaged ({said}); give --weights FILE, or --weights "
            "random for a trial, or set HF_HOME to a folder that has them"
        ) from error


def _published(model: nn.Module) -> str:
    """Where the published weights are, e.g. ``timm/resnet10t.c3_in1k``."""
    config: Mapping[str, Any] = cast("Any", model).pretrained_cfg
    return str(config.get("hf_hub_id") or config.get("url") or config.get("tag") or "timm's default")


def _preprocessing(timm: ModuleType, model: nn.Module, name: str) -> Preprocessing:
    config: dict[str, Any] = timm.data.resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(
            f"timm:{name} looks at {channels} channels of {height} x {width} pixels; expected RGB squares"
        )
    origin, interpolation = "from timm's configuration of this model", str(config["interpolation"])
    if interpolation not in INTERPOLATIONS:
        origin += f", which names {interpolation!r} as interpolation: bicubic is the nearest to it here"
        interpolation = "bicubic"
    return Preprocessing(
        input_size=height,
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        interpolation=interpolation,
        crop_fraction=min(1.0, float(config["crop_pct"])),
        origin=origin,
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _resized(teacher: Teacher, side: int | None) -> Teacher:
    """The teacher for pictures of ``--input-size``: timm's transformers are fitted to it, others take it."""
    if side in (None, teacher.preprocessing.input_size) or not _set_input_size(teacher.model, side):
        return teacher
    return replace(teacher, digest=weights_digest(teacher.model))


def _set_input_size(model: nn.Module, side: object) -> bool:
    resize = getattr(model, "set_input_size", None)
    if resize is None or not isinstance(side, int) or side < 1:
        return False
    try:
        resize(img_size=(side, side))
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"{type(model).__name__} cannot be fitted to {side} pixels: {error}") from error
    return True
