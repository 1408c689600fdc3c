"""Teachers from ``package.module:factory``: any callable that returns a classifier."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn

from cache_builder.format.errors import ConfigError
from cache_builder.teachers.teacher import Teacher, TeacherRequest, freeze, with_state
from cache_builder.teachers.weights import read_weights

Factory = Callable[..., object]


def open_factory(name: str, request: TeacherRequest) -> Teacher:
    """Call the factory (with ``num_classes`` where it takes that) and load ``--weights`` if it is a file."""
    factory = import_factory(name)
    torch.manual_seed(request.seed)
    if request.weights in ("default", "random"):
        what = "the factory's own" if request.weights == "default" else f"random (seed {request.seed})"
        return freeze(name, _call(name, factory, request.data_classes), what, request.fallback, None)
    state, metadata = read_weights(request.weights_path)
    class_names = metadata.get("class_names")
    model = _call(name, factory, len(class_names) if class_names else request.data_classes)
    return with_state(name, model, state, request.weights_path, request.fallback, metadata)


def import_factory(name: str) -> Factory:
    """The callable that ``package.module:factory`` names; also found beside the working directory."""
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{name!r}: {error}; expected package.module:factory") from error
    except Exception as error:
        raise ConfigError(f"{name!r}: importing {module_name} failed: {_told(error)}") from error
    if not callable(factory):
        raise ConfigError(f"{name!r}: {attribute} is not callable; expected package.module:factory")
    return cast("Factory", factory)


def _call(name: str, factory: Factory, classes: int | None) -> nn.Module:
    try:
        takes_classes = "num_classes" in inspect.signature(factory).parameters
        model = factory(num_classes=classes) if takes_classes and classes else factory()
    except Exception as error:
        raise ConfigError(f"{name!r} failed: {_told(error)}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name!r} returned {type(model).__name__}, expected a torch.nn.Module")
    return model


def _told(error: Exception) -> str:
    """Somebody else's error with the line it came from, for a message without a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
