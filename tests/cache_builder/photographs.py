"""Folders of real photographs, cut from the pictures that scikit-image and scikit-learn bundle."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from tests.cache_builder.models import CLASSES


@cache
def bundled() -> tuple[NDArray[np.uint8], ...]:
    """Colour photographs uint8 [H, W, 3]; none of them is downloaded."""
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), *load_sample_images().images]
    return tuple(np.asarray(picture, np.uint8)[..., :3] for picture in pictures)


def cut(index: int, height: int, width: int) -> NDArray[np.uint8]:
    """The ``index``-th piece [height, width, 3]: places differ, pictures alternate."""
    large = [picture for picture in bundled() if picture.shape[0] >= height and picture.shape[1] >= width]
    picture = large[index % len(large)]
    rng = np.random.default_rng(index)
    side = 2 if picture.shape[0] >= 2 * height and picture.shape[1] >= 2 * width else 1
    top = rng.integers(picture.shape[0] - side * height + 1)
    left = rng.integers(picture.shape[1] - side * width + 1)
    return np.ascontiguousarray(picture[top : top + side * height : side, left : left + side * width : side])


def write_folder(
    root: Path, classes: int = CLASSES, per_class: int = 2, size: tuple[int, int] = (40, 48)
) -> Path:
    """``root/class_00/img_0.jpg``...: JPEG photographs of ``size`` (height, width)."""
    for label in range(classes):
        folder = root / f"class_{label:02d}"
        folder.mkdir(parents=True)
        for item in range(per_class):
            piece = cut(label * per_class + item, *size)
            Image.fromarray(piece).save(folder / f"img_{item}.jpg", quality=90)
    return root
