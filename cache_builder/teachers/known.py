"""Names of teachers, looked up before torch is imported; what to say of one that nobody knows."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from cache_builder.console.dotted import find_in_working_directory
from cache_builder.console.libraries import folder_of, model_names
from cache_builder.console.names import SMALL_STUDENTS, unknown_name
from cache_builder.console.unknown_models import unknown_model
from cache_builder.format.errors import ConfigError

TIMM = "timm:"

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

_WEIGHTS_FILES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")
_OTHER_WAYS = " (or timm:NAME, or package.module:factory)"


def check_teacher_name(name: str) -> None:
    """Raise :class:`ConfigError` for a name that is certainly no teacher's, with what was probably meant."""
    if name.startswith(TIMM):
        _check_timm(name)
    elif ":" in name:
        _check_factory(name)
    elif (known := model_names("torchvision")) and ALIASES.get(name, name) not in known:
        raise ConfigError(unknown_teacher(name))


def unknown_teacher(name: str) -> str:
    """What to say of a name that is neither torchvision's nor one of the short ones."""
    if name.lower().endswith(_WEIGHTS_FILES) or Path(name).expanduser().exists():
        return (
            f"--teacher {name} is a file of weights: say which model they are of and give them with "
            f"--weights, as in --teacher resnet50 --weights {name} (for a model of timm --teacher timm:NAME)"
        )
    if name in SMALL_STUDENTS:
        return f"unknown teacher {name!r}: it is a student of kdtrain's; write trainer.students:{name}"
    return unknown_model("teacher", name, ALIASES, TIMM, _OTHER_WAYS)


def _check_timm(spec: str) -> None:
    known = model_names("timm")
    if folder_of("timm") is None:
        raise ConfigError(f"teacher {spec} needs timm: pip install 'kdcache[timm]'")
    architecture = spec.removeprefix(TIMM).partition(".")[0]
    if known and architecture not in known:
        raise ConfigError(unknown_timm(spec.removeprefix(TIMM), known))


def unknown_timm(name: str, known: Iterable[str]) -> str:
    """What to say of ``timm:NAME`` where timm has no such model."""
    architecture = name.partition(".")[0]
    prefixed = sorted(other for other in known if other.endswith(f"_{architecture}"))
    if prefixed:
        return f"unknown timm teacher {name!r}: did you mean {' or '.join(map(repr, prefixed[:4]))}?"
    return unknown_name("timm teacher", name, known)


def _check_factory(name: str) -> None:
    """The package of ``package.module:factory`` must be there; the rest is known when it is imported."""
    package = name.partition(":")[0].partition(".")[0]
    find_in_working_directory()
    try:
        found = package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        return
    if not found:
        raise ConfigError(
            f"{name!r}: No module named {package!r}; expected package.module:factory, installed or beside "
            f"the working directory, or timm:NAME, or a name of torchvision"
        )
