"""CIFAR-10 and CIFAR-100, where torchvision's files are already on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.options import split_options
from cache_builder.datasets.source import ArraySource
from cache_builder.format.errors import ConfigError, DataError


def open_cifar10(argument: str) -> ArraySource:
    """``cifar10:PATH`` (training part) or ``cifar10:PATH:test``; ``?classes=FILE`` orders the classes."""
    return _open("cifar10", "CIFAR10", "cifar-10-batches-py", argument)


def open_cifar100(argument: str) -> ArraySource:
    """``cifar100:PATH`` (training part) or ``cifar100:PATH:test``; ``?classes=FILE`` orders the classes."""
    return _open("cifar100", "CIFAR100", "cifar-100-python", argument)


def _open(name: str, kind_name: str, folder: str, argument: str) -> ArraySource:
    location, options = split_options(name, argument, ("classes",))
    path, part = split_part(location)
    if not path:
        raise ConfigError(f"{name} needs the folder that holds {folder!r}: write {name}:PATH")
    if not (Path(path).expanduser() / folder).is_dir():
        raise _not_there(name, path, folder)
    # Imported once there is something to read: it brings torch, for which a misspelt path should not wait.
    import torchvision

    kind: Any = getattr(torchvision.datasets, kind_name)
    try:
        # torchvision checks the files' MD5 before it unpickles them.
        data = kind(Path(path).expanduser(), train=part == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise _not_there(name, path, folder) from error
    spec = f"{name}:{argument}"
    found = np.array(data.targets, np.int32)
    names, labels = in_given_order(spec, tuple(data.classes), found, options.get("classes"))
    return ArraySource(spec, data.data, labels, names)


def _not_there(name: str, path: str, folder: str) -> DataError:
    archive = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}[name]
    return DataError(
        f"{name}: {path!r} does not hold the folder {folder!r} with all its files intact; "
        f"kdcache downloads nothing: unpack {archive} there"
    )


def split_part(argument: str) -> tuple[str, str]:
    """``PATH[:train|:test]`` to path and part; the training part where none is named."""
    for part in ("train", "test"):
        if argument.endswith(f":{part}"):
            return argument.removesuffix(f":{part}"), part
    return argument, "train"
