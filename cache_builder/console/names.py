"""Names as people write them: data sets, their options, classes, devices; what to say of an unknown one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Literal, get_args

from cache_builder.format.errors import ConfigError

# What `--data` takes, for the help of both programs: they must not load the data sets to show it.
DATA_KINDS = (
    "imagefolder:PATH, webdataset:PATTERN, hf:PATH[:SPLIT], csv:PATH, parquet:PATH, "
    "torchvision:NAME:PATH, cifar10:PATH[:test], cifar100:PATH[:test], digits[:train|:test] or "
    "package.module:Name[:ARGUMENT]"
)

# The options behind a data set's path: only a tail that is nothing but NAME=VALUE, as a glob may hold
# question marks too.
OPTIONS = re.compile(r"\?(\w+=[^&]*(?:&\w+=[^&]*)*)$")
_DIGITS = re.compile(r"(\d+)")

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

SMALL_STUDENTS = ("cnn3", "resnet20")
"""kdtrain's own students, whose trained files are teachers again: ``trainer.students`` makes them."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, or with all of them where nothing is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    offer = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names[:20])}"
    )
    return f"unknown {kind} {name!r}: {offer}"


def check_device_name(name: str) -> str:
    """The same name; :class:`ConfigError` for one that is no device's."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device {name!r} is not one of auto, cpu, cuda, cuda:N")
    return name


def check_precision_name(name: str) -> str:
    """The same name; :class:`ConfigError` for one that is no arithmetic of ours."""
    if name not in ("auto", *PRECISIONS):
        raise ConfigError(f"precision {name!r} is not one of auto, {', '.join(PRECISIONS)}")
    return name


def natural_key(name: str) -> list[str | int]:
    """Sort key that puts 2 before 10, as timm's training script orders class folders; letter case is ignored.

    Text and numbers alternate, so that any two keys can be compared.
    """
    parts = _DIGITS.split(name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def with_classes(spec: str, value: str) -> str:
    """A data set's spec with the option ``classes=value``, in place of the one it may have."""
    tail = OPTIONS.search(spec)
    if tail is None:
        return f"{spec}?classes={value}"
    others = [part for part in tail[1].split("&") if not part.startswith("classes=")]
    return spec[: tail.start()] + "?" + "&".join([*others, f"classes={value}"])
