"""What a data set must be able to do: name its samples and read one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One decoded image and the digest of the bytes it came from."""

    image: Tensor
    """uint8 [3, H, W], RGB."""
    digest: int
    """xxh64 of the source bytes."""


class ImageSource(Protocol):
    """A data set of images. Picklable, so that loader workers can have it."""

    spec: str
    """How it was opened, e.g. ``imagefolder:/data/train``."""
    class_names: tuple[str, ...] | None
    """Names in label order."""

    @property
    def ids(self) -> Sequence[str]:
        """Stable sample ids, in order."""

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """Labels [N], None where there are none."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Decode one sample. Raises :class:`DataError` naming it when that fails."""


class ArraySource:
    """Images that fit in memory: uint8 [N, H, W, 3]."""

    def __init__(
        self,
        spec: str,
        images: NDArray[np.uint8],
        labels: NDArray[np.int32],
        class_names: tuple[str, ...],
        first_id: int = 0,
    ) -> None:
        self.spec = spec
        self.class_names: tuple[str, ...] | None = class_names
        self.labels: NDArray[np.int32] | None = labels
        # Decimal positions in the whole data set.
        self.ids: Sequence[str] = [str(first_id + index) for index in range(len(images))]
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Sample:
        """The image as a tensor; never fails."""
        pixels = np.ascontiguousarray(self._images[index])
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1), xxhash.xxh64_intdigest(pixels.data))


class LimitedSource:
    """The first N samples of a data set, classes and all."""

    def __init__(self, source: ImageSource, limit: int) -> None:
        self._source = source
        self.spec = source.spec
        self.class_names = source.class_names
        self.ids: Sequence[str] = source.ids[:limit]
        self.labels: NDArray[np.int32] | None = None if source.labels is None else source.labels[:limit]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """As the whole data set does."""
        return self._source.read(index)
