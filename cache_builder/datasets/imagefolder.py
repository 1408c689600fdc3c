"""A folder of image files, one sub-folder per class (or no sub-folders: no labels)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cache_builder.datasets.source import Sample
from cache_builder.format.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class ImageFolder:
    """Sample id = path relative to the folder, with ``/``; rows in the byte order of the ids.

    Labels are the sorted names of the first-level folders, as in torchvision's ImageFolder. EXIF
    orientation is ignored, as there.
    """

    def __init__(self, path: str) -> None:
        self.spec = f"imagefolder:{path}"
        self._root = Path(path)
        if not self._root.is_dir():
            raise DataError(f"image folder {path!r} does not exist or is not a folder")
        self._ids = _image_paths(self._root)
        if not self._ids:
            raise DataError(f"image folder {path!r} holds no images ({', '.join(EXTENSIONS)})")
        self.class_names, self._labels = _classes(self._ids)

    @property
    def ids(self) -> Sequence[str]:
        """Relative paths."""
        return self._ids

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """Index of the class folder, None for a flat folder."""
        return self._labels

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, index: int) -> Sample:
        """Read and decode one file; errors name its path."""
        path = self._root / self._ids[index]
        try:
            data = path.read_bytes()
            return Sample(decode_image(data), xxhash.xxh64_intdigest(data))
        except (
            OSError,
            UnidentifiedImageError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:
            raise DataError(f"cannot read image {path}: {error}") from error


def decode_image(data: bytes) -> Tensor:
    """Any image file Pillow knows to uint8 [3, H, W]: grey, palette, alpha and 16-bit become RGB."""
    with Image.open(BytesIO(data)) as image:
        pixels = np.array(_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey: Pillow's own conversion clips at 255 instead of scaling.
        grey = np.asarray(image, np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _image_paths(root: Path) -> list[str]:
    """Relative paths of all images below the root, hidden files left out, in byte order."""
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(folder).relative_to(root)
        found.extend(
            (relative / name).as_posix()
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        )
    return sorted(found, key=str.encode)


def _classes(ids: list[str]) -> tuple[tuple[str, ...] | None, NDArray[np.int32] | None]:
    """Class names and labels from the first path component; none when any image lies at the top."""
    if any("/" not in sample_id for sample_id in ids):
        return None, None
    folders = [sample_id.split("/", 1)[0] for sample_id in ids]
    names = tuple(sorted(set(folders)))
    index = {name: label for label, name in enumerate(names)}
    return names, np.array([index[folder] for folder in folders], np.int32)
