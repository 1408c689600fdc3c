"""scikit-learn's handwritten digits: 1,797 real 8x8 images, embedded in the package."""

from __future__ import annotations

import numpy as np

from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.options import split_options
from cache_builder.datasets.source import ArraySource
from cache_builder.format.errors import ConfigError, DataError

# The files keep the order in which the writers were recorded, so a cut keeps most writers on one side:
# the last third is handwriting that training has hardly seen.
_TRAIN = 1197


def open_digits(argument: str) -> ArraySource:
    """``digits`` (all), ``digits:train`` (first 1,197) or ``digits:test`` (last 600).

    ``?classes=FILE`` behind it orders or names the classes. Raises :class:`ConfigError` without scikit-learn.
    """
    spec = f"digits:{argument}" if argument else "digits"
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ConfigError(f"{spec} needs scikit-learn: pip install 'kdcache[demo]'") from error

    part, options = split_options("digits", argument, ("classes",))
    parts = {"": (0, None), "train": (0, _TRAIN), "test": (_TRAIN, None)}
    if part not in parts:
        raise DataError(f"digits has the parts 'train' and 'test', not {part!r}")
    start, stop = parts[part]
    bunch = load_digits()
    grey = np.rint(bunch.images[start:stop] * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    found = bunch.target[start:stop].astype(np.int32)
    digits = tuple(str(digit) for digit in range(10))
    names, labels = in_given_order(spec, digits, found, options.get("classes"))
    return ArraySource(spec, images, labels, names, first_id=start, mirrors=False)
