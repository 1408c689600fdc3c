"""Students by name: torchvision's classifiers, a few for small images, and anybody's factory.

Every factory takes ``num_classes`` and gives a module from normalised images float [B, 3, S, S] to logits
[B, num_classes].
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from pydantic import JsonValue
from torch import Tensor, nn

from cache_builder.console.dotted import import_dotted, is_dotted
from cache_builder.format.errors import ConfigError
from trainer.objective.expression import Call, parse_call
from trainer.students.known import unknown_student

Factory = Callable[..., nn.Module]


def cnn3(num_classes: int = 10, width: int = 32) -> nn.Module:
    """Three 3x3 convolutions of ``width``, 2 ``width`` and 4 ``width`` channels; any image from 4 pixels."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(3):
        out = width * 2**stage
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        if stage < 2:
            layers.append(nn.MaxPool2d(2))
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class _Block(nn.Module):
    """Two 3x3 convolutions around which the input goes, subsampled and zero-padded where shapes change."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride = stride
        self.extra = out - channels

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, self.extra)))


def resnet20(num_classes: int = 10, width: int = 16) -> nn.Module:
    """The CIFAR ResNet-20 of He et al. (arXiv 1512.03385, section 4.2): 3 stages of 3 blocks, 0.27 M weights.

    ``width``: channels of the first stage; the others have two and four times as many.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    channels = width
    for stage in range(3):
        for block in range(3):
            out = width * 2**stage
            layers.append(_Block(channels, out, stride=2 if stage and block == 0 else 1))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


SMALL_STUDENTS: dict[str, Factory] = {
    "cnn3": cnn3,
    "resnet20": resnet20,
}

# The auxiliary heads of these give other outputs in training than in evaluation.
_TORCHVISION_EXTRAS: dict[str, dict[str, JsonValue]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def student_names() -> list[str]:
    """Every name that ``make_student`` knows."""
    from torchvision import models

    return [*SMALL_STUDENTS, *models.list_models(module=models)]


def make_student(spec: str, num_classes: int, image_size: int) -> nn.Module:
    """A fresh student from ``resnet18``, ``cnn3(width=8)`` or ``package.module:factory(key=value)``.

    ``image_size`` reaches factories that ask for it (vision transformers). Raises :class:`ConfigError` for a
    name or argument it does not know.
    """
    call = parse_call(spec)
    factory = _import_factory(call.name) if is_dotted(call.name) else _named_factory(call.name)
    arguments = {"num_classes": num_classes, **_size_argument(call, factory, image_size), **call.arguments}
    try:
        student = factory(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"student {spec!r} cannot be made: {error}") from error
    if not isinstance(student, nn.Module):
        raise ConfigError(
            f"student {spec!r}: the factory gave {type(student).__name__}, not a torch.nn.Module"
        )
    return student


def _named_factory(name: str) -> Factory:
    from torchvision import models

    if name in SMALL_STUDENTS:
        return SMALL_STUDENTS[name]
    if name not in models.list_models(module=models):
        raise ConfigError(unknown_student(name))
    builder: Factory = models.get_model_builder(name)
    extras = _TORCHVISION_EXTRAS.get(name, {})

    def build(**arguments: Any) -> nn.Module:
        return builder(weights=None, **{**extras, **arguments})

    return build


def _import_factory(path: str) -> Factory:
    factory = import_dotted(path, "student")
    if not callable(factory):
        raise ConfigError(f"student {path!r} is not callable; expected package.module:factory")
    return cast("Factory", factory)


def _size_argument(call: Call, factory: Factory, image_size: int) -> dict[str, int]:
    asks = call.name.startswith("vit_") or "image_size" in inspect.signature(factory).parameters
    return {"image_size": image_size} if asks else {}
