"""What somebody might add: a data set, a view recipe, a format of dumps, each as its documentation says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.source import ImageSample, pixel_sample
from cache_builder.format.ids import DecimalIds
from cache_builder.interchange.sources import DumpRequest
from cache_builder.views.recipes import Box, Recipe


class Stripes:
    """Pictures of stripes in three colours: ``toy:COUNT``."""

    class_names: tuple[str, ...] | None = ("red", "green", "blue")
    reads_files = False
    side: int | None = 16
    mirrors = True

    def __init__(self, argument: str = "24") -> None:
        self.spec = f"{__name__}:Stripes:{argument}"
        self.ids: Sequence[str] = DecimalIds(int(argument))
        self.labels: NDArray[np.int32] | None = np.arange(len(self.ids), dtype=np.int32) % 3

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> ImageSample:
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:: 1 + row % 5, :, row % 3] = 255 - row
        return pixel_sample(pixels)


class Corner(Recipe):
    """A square of ``side`` of the picture's height, in its upper left corner."""

    side: float = 0.5

    def numbers(self) -> int:
        return 0

    def box(self, numbers: NDArray[np.float64], height: int, width: int) -> Box:
        side = max(1, round(self.side * height))
        return Box(0, 0, side, side)


class Counted:
    """A dump of 20 samples whose logits are known."""

    views, classes, top_k, own_views = 2, 6, None, False
    ids = labels = None
    lacks = ("everything but numbers",)
    stored_precision: Literal["fp32"] = "fp32"

    def __init__(self, request: DumpRequest) -> None:
        self.source = request.source

    def __len__(self) -> int:
        return 20

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        view, row, one = np.meshgrid(np.array(views), rows, np.arange(6), indexing="ij")
        return np.asarray((row * 7 + view * 3 + one * one) % 11, np.float32)


def not_a_source(argument: str = "") -> object:
    return object()
