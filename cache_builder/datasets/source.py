"""What a data set must be able to do: name its samples and read one. Pictures are one kind of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import DecimalIds

if TYPE_CHECKING:
    from torch import Tensor


T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Sample(Generic[T_co]):
    """What a source holds at one row, and the digest of the bytes it came from."""

    value: T_co
    """A picture is uint8 [3, H, W], RGB; what other kinds of samples are, their sources say."""
    digest: int
    """xxh64 of the source bytes."""

    @property
    def image(self) -> T_co:
        """The value, by the name that programs written for pictures use."""
        return self.value


ImageSample = Sample["Tensor"]


class Source(Protocol[T_co]):
    """A data set: it names its samples in a fixed order and reads one of them.

    Picklable, so that loader workers can have it; safe to read after a fork.
    """

    spec: str
    """How it was opened, e.g. ``imagefolder:/data/train``."""

    @property
    def ids(self) -> Sequence[str]:
        """Stable sample ids, in order; ``SampleIds`` or ``DecimalIds`` where there may be many."""

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """Labels [N], -1 where a sample has none; None where there are none."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> Sample[T_co]:
        """Decode one sample. Raises :class:`DataError` naming it when that fails."""


class ImageSource(Source["Tensor"], Protocol):
    """A data set of pictures, and what a build wants to know of them before it reads one."""

    class_names: tuple[str, ...] | None
    """Names in label order."""
    reads_files: bool
    """Whether a sample comes from a file, so that a loader process has something to wait for."""
    side: int | None
    """Longer side in pixels of images that all have one size, None where sizes vary."""
    mirrors: bool
    """Whether a mirrored image is an image of the same class: not so for writing."""


def decoding_of(source: object) -> Decoding | None:
    """The rule by which a data set decodes files; None where its pictures are pixels already.

    Data sets that decode have it as ``decoding``, which ``open_source`` sets.
    """
    found: Decoding | None = getattr(source, "decoding", None)
    return found


def read_ahead(source: object, rows: Sequence[int]) -> None:
    """Tell a data set which rows are read next; most have nothing to do with it."""
    ahead = getattr(source, "read_ahead", None)
    if ahead is not None:
        ahead(rows)


def left_out_of(source: object) -> str:
    """What a data set's folder or shards hold and it leaves out (its ``left_out``); empty for nothing."""
    found: str = getattr(source, "left_out", "")
    return found


def pixel_sample(pixels: NDArray[np.uint8]) -> ImageSample:
    """A sample that has no file: its digest is that of its pixels, uint8 [H, W, 3]."""
    pixels = np.ascontiguousarray(pixels)
    return Sample(as_tensor(pixels), xxhash.xxh64_intdigest(pixels.data))


def as_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels uint8 [H, W, 3] as [3, H, W], on the same memory."""
    # Imported with the first picture: a data set that is not there is told without waiting for torch.
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1)


class ArraySource:
    """Images that fit in memory: uint8 [N, H, W, 3]. Ids are decimal positions in the whole data set."""

    reads_files = False

    def __init__(
        self,
        spec: str,
        images: NDArray[np.uint8],
        labels: NDArray[np.int32] | None,
        class_names: tuple[str, ...] | None,
        first_id: int = 0,
        mirrors: bool = True,
    ) -> None:
        self.spec = spec
        self.class_names: tuple[str, ...] | None = class_names
        self.labels: NDArray[np.int32] | None = labels
        self.ids: Sequence[str] = DecimalIds(len(images), first_id)
        self.side: int | None = max(images.shape[1:3])
        self.mirrors = mirrors
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> ImageSample:
        """The image as a tensor; never fails."""
        return pixel_sample(self._images[index])


class Wrapped:
    """A data set that answers as another one does, but for what a subclass says."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not while it is unpickled
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)


class LimitedSource:
    """The first N samples of a data set, classes and all."""

    def __init__(self, source: ImageSource, limit: int) -> None:
        self.whole = source
        self.spec = source.spec
        self.class_names = source.class_names
        self.reads_files, self.side, self.mirrors = source.reads_files, source.side, source.mirrors
        self.decoding, self.left_out = decoding_of(source), left_out_of(source)
        self.ids: Sequence[str] = source.ids[:limit]
        self.labels: NDArray[np.int32] | None = None if source.labels is None else source.labels[:limit]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> ImageSample:
        """As the whole data set does."""
        return self.whole.read(index)

    def read_ahead(self, rows: Sequence[int]) -> None:
        """As the whole data set does, where it can."""
        read_ahead(self.whole, rows)
