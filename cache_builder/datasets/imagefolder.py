"""A folder of image files, one sub-folder per class (or no sub-folders: no labels)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache_builder.datasets.source import Sample
from cache_builder.format.errors import ConfigError, DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class ImageFolder:
    """Sample id = path relative to the folder, with ``/``; rows in the byte order of the ids.

    Labels are the sorted names of the first-level folders, as in torchvision's ImageFolder. EXIF
    orientation is ignored, as there. Hidden files and folders are left out; linked folders are followed.
    """

    def __init__(self, path: str) -> None:
        self.spec = f"imagefolder:{path}"
        if not path:
            raise ConfigError("imagefolder needs a folder: write imagefolder:PATH")
        self._root = Path(path).expanduser()
        if not self._root.is_dir():
            raise DataError(f"image folder {path!r} does not exist or is not a folder")
        self._ids = _image_paths(self._root)
        if not self._ids:
            raise DataError(f"image folder {path!r} holds no images ({', '.join(EXTENSIONS)})")
        self.class_names, self._labels = _classes(self._ids)
        self._check_folders()

    def _check_folders(self) -> None:
        """An empty class folder would move every later label by one; a cache built in here is none."""
        if self.class_names is None:
            return
        for folder in sorted(self._root.iterdir()):
            known = folder.name in self.class_names or folder.name.startswith(".")
            if folder.is_dir() and not known and not (folder / "zarr.json").exists():
                raise DataError(f"class folder {folder} holds no images: remove it, or put its images there")

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
        except OSError as error:
            raise DataError(f"cannot read image {path}: {error.strerror}") from error
        try:
            return Sample(decode_image(data), xxhash.xxh64_intdigest(data))
        except Exception as error:  # Pillow's decoders raise anything for damaged bytes
            # Pillow names the buffer it was given, which says nothing.
            why = "not an image that Pillow knows" if "BytesIO" in str(error) else error
            raise DataError(f"cannot read image {path} ({len(data):,} bytes): {why}") from error


def decode_image(data: bytes) -> Tensor:
    """Any image file Pillow knows to uint8 [3, H, W]: grey, palette, alpha and 16-bit become RGB."""
    with warnings.catch_warnings():
        # Odd metadata is no news; a picture that cannot be decoded raises.
        warnings.simplefilter("ignore")
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
    """Relative paths of all images below the root, in byte order."""
    return sorted(_scan(str(root), "", frozenset()), key=os.fsencode)


def _scan(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Images below ``folder``, each behind ``prefix``. ``above``: the folders on the way here."""
    status = Path(folder).stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return  # a link back to a folder we are in
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"cannot list folder {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _scan(entry.path, f"{prefix}{entry.name}/", above | {identity})
        # A dangling link stays in, so that it is told; a pipe or a device would block its reader.
        elif entry.name.lower().endswith(EXTENSIONS) and (entry.is_symlink() or entry.is_file()):
            yield prefix + entry.name


def _classes(ids: list[str]) -> tuple[tuple[str, ...] | None, NDArray[np.int32] | None]:
    """Class names and labels from the first path component; none when all images lie at the top."""
    at_top = [sample_id for sample_id in ids if "/" not in sample_id]
    if len(at_top) == len(ids):
        return None, None
    if at_top:
        raise DataError(
            f"{len(at_top)} image(s) lie beside the class folders, the first is {at_top[0]!r}: "
            "move them into a folder, or take one folder without sub-folders (no labels)"
        )
    folders = [sample_id.split("/", 1)[0] for sample_id in ids]
    names = tuple(sorted(set(folders)))
    index = {name: label for label, name in enumerate(names)}
    return names, np.array([index[folder] for folder in folders], np.int32)
