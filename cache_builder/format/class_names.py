"""Names of classes as arrays of a store: the teacher's, and the data set's own where these are others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.ids import SampleIds
from cache_builder.format.manifest import Manifest
from cache_builder.format.manifest.older import names_in_manifest

NAMES = "samples/class_name"
OWN_NAMES = "samples/own_class_name"


@dataclass(frozen=True)
class ClassNames:
    """What the classes are called."""

    teacher: tuple[str, ...] | None = None
    """C names in logit order; None where nobody named them."""
    own: tuple[str, ...] | None = None
    """Names of the data set's own classes where they are not the teacher's, so that no labels are stored."""

    @classmethod
    def read(cls, manifest: Manifest, body: dict[str, Any], array: Callable[[str], NDArray[Any]]) -> Self:
        """Of a cache of any version. ``body``: its manifest as stored; ``array`` reads a header array."""
        if manifest.format_version < 3:
            return cls(*names_in_manifest(body))
        named, own = manifest.logits.named, manifest.data.own_classes
        return cls(_read(NAMES, array) if named else None, _read(OWN_NAMES, array) if own else None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by store path; none for names that nobody gave."""
        return _arrays(NAMES, self.teacher) | _arrays(OWN_NAMES, self.own)


NO_NAMES = ClassNames()
"""Nobody named any class."""


def _read(stem: str, array: Callable[[str], NDArray[Any]]) -> tuple[str, ...]:
    offsets = array(f"{stem}_offsets")  # first: they say how long the text is
    return tuple(SampleIds(array(f"{stem}_bytes"), offsets))


def _arrays(stem: str, names: tuple[str, ...] | None) -> dict[str, NDArray[Any]]:
    if not names:
        return {}
    encoded = SampleIds.of(names)
    arrays: dict[str, NDArray[Any]] = {f"{stem}_bytes": encoded.id_bytes, f"{stem}_offsets": encoded.offsets}
    # Not views of growing buffers, as ids may be: these are small.
    return {path: np.array(array) for path, array in arrays.items()}
