"""A teacher, and what is known before one is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from torch import nn

from cache_builder.format.errors import DataError
from cache_builder.teachers.outputs import LOGITS
from cache_builder.teachers.preprocessing import Preprocessing, described
from cache_builder.teachers.weights import Weights, load_into, weights_digest
from cache_builder.tensors.heads import DualHead, HeadSpec


@dataclass(frozen=True)
class TeacherRequest:
    """What the user said about the teacher and what the data set adds."""

    weights: str = "default"
    """``default``, ``random`` or a file."""
    seed: int = 0
    """Seed of random weights."""
    data_classes: int | None = None
    """Classes of the data set, where it has any: the size of a random head."""
    fallback: Preprocessing = field(default_factory=lambda: Preprocessing(input_size=224))
    """For a model that says nothing about its preprocessing."""
    input_size: int | None = None
    """Side of the pictures in pixels where the user chose one: some models are built for a size."""


@dataclass(frozen=True)
class Teacher:
    """A classifier in evaluation mode, and what it wants to see."""

    spec: str
    """Resolved name, e.g. ``torchvision:vit_l_16``."""
    model: nn.Module
    weights: str
    """Where the weights came from."""
    digest: str
    """Digest of the weights."""
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    """From the weights' metadata."""
    outputs: Mapping[str, int] = field(default_factory=dict)
    """Width of each named output, e.g. ``{"logits": 1000}``; empty where nothing but an answer can tell."""


def freeze(
    spec: str,
    model: nn.Module,
    weights: str,
    preprocessing: Preprocessing,
    names: tuple[str, ...] | None,
    classes: int | None = None,
) -> Teacher:
    """A teacher from a model whose weights are in place; ``classes``: its logits, where that is known."""
    model.eval().requires_grad_(False)
    outputs = {LOGITS: classes} if classes else {}
    return Teacher(spec, model, weights, weights_digest(model), preprocessing, names, outputs)


def wake_head(model: nn.Module) -> nn.Module:
    """Give a zero head random weights: vision transformers have one, and a trial should tell images apart."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.trunc_normal_(module.weight, std=0.02)
    return model


def with_state(
    spec: str, model: nn.Module, weights: Weights, preprocessing: Preprocessing, classes: int | None = None
) -> Teacher:
    """A teacher with weights from a file. ``preprocessing``: the architecture's own; ``classes``: as built.

    A file written by kdtrain also says what the model wants to see, and whether it has an auxiliary head:
    then the teacher answers as that student does, with both heads mixed.
    """
    metadata = weights.metadata
    model = _with_head(model, weights.origin, metadata)
    load_into(model, weights)
    names = metadata.get("class_names")
    try:
        wanted = described(preprocessing, weights.beside)
        wanted = described(wanted, metadata | {"origin": "from the weights file"} if metadata else {})
        class_names = tuple(str(name) for name in names) if names else None
    except (TypeError, ValueError) as error:
        raise _damaged(weights.origin, error) from error
    return freeze(spec, model, weights.origin, wanted, class_names, classes)


def _with_head(model: nn.Module, origin: str, metadata: dict[str, Any]) -> nn.Module:
    if metadata.get("aux_head") is None:
        return model
    try:
        spec, classes = HeadSpec.model_validate(metadata["aux_head"]), int(metadata["classes"])
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise _damaged(origin, error) from error
    return DualHead(model, spec, classes, metadata.get("aux_classes"))


def _damaged(origin: str, error: Exception) -> DataError:
    return DataError(
        f"what is said of weights {origin} is damaged (kdcache's metadata, or a file beside): {error}"
    )
