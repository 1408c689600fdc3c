"""CIFAR-10 and CIFAR-100, where torchvision's files are already on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torchvision

from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.options import split_options
from cache_builder.datasets.source import ArraySource
from cache_builder.format.errors import ConfigError, DataError


def open_cifar10(argument: str) -> ArraySource:
    """``cifar10:PATH`` (training part) or ``cifar10:PATH:test``; ``?classes=FILE`` orders the classes."""
    return _open("cifar10", torchvision.datasets.CIFAR10, argument)


def open_cifar100(argument: str) -> ArraySource:
    """``cifar100:PATH`` (training part) or ``cifar100:PATH:test``; ``?classes=FILE`` orders the classes."""
    return _open("cifar100", torchvision.datasets.CIFAR100, argument)


def _open(name: str, kind: type[torchvision.datasets.CIFAR10], argument: str) -> ArraySource:
    location, options = split_options(name, argument, ("classes",))
    path, part = split_part(location)
    if not path:
        raise ConfigError(f"{name} needs the folder that holds {kind.base_folder!r}: write {name}:PATH")
    try:
        # torchvision checks the files' MD5 before it unpickles them.
        data = kind(Path(path).expanduser(), train=part == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name}: {path!r} does not hold the folder {kind.base_folder!r} with all its files intact; "
            f"kdcache downloads nothing: unpack {kind.filename} there"
        ) from error
    spec = f"{name}:{argument}"
    found = np.array(data.targets, np.int32)
    names, labels = in_given_order(spec, tuple(data.classes), found, options.get("classes"))
    return ArraySource(spec, data.data, labels, names)


def split_part(argument: str) -> tuple[str, str]:
    """``PATH[:train|:test]`` to path and part; the training part where none is named."""
    for part in ("train", "test"):
        if argument.endswith(f":{part}"):
            return argument.removesuffix(f":{part}"), part
    return argument, "train"
