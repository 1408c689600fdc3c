"""Bytes of an image file to pixels, the same way for every data set."""

from __future__ import annotations

import unicodedata
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from PIL import Image

from cache_builder.datasets.object_paths import Location
from cache_builder.datasets.pixels import NEWEST, as_rgb
from cache_builder.datasets.source import ImageSample, Sample, as_tensor
from cache_builder.format.errors import DataError
from cache_builder.format.frozen import Decoding

if TYPE_CHECKING:
    from torch import Tensor

# Those of torchvision's ImageFolder, and other names of the same formats: browsers save JPEGs as .jfif.
EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm",
)  # fmt: skip


def read_image_file(path: Location, where: str = "", decoding: Decoding = NEWEST) -> ImageSample:
    """Read and decode a file; errors name its path, and ``where`` it was named."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}{where}: {error.strerror}{_other_form(path)}") from error
    except ValueError as error:  # a zero byte in a path
        raise DataError(f"cannot read image {str(path)!r}{where}: {error}") from error
    return decoded_sample(data, f"{path}{where}", decoding)


def _other_form(path: Location) -> str:
    """A clause where a file is there under the same letters in another Unicode normal form."""
    if not isinstance(path, Path):
        return ""
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    found = next((other for other in forms if other != path and other.exists()), None)
    if found is None:
        return ""
    return (
        f"; a file of the same letters in another Unicode normal form is there, {str(found)!a} and not "
        f"{str(path)!a}: write both in one form"
    )


def decoded_sample(data: bytes, name: str, decoding: Decoding = NEWEST) -> ImageSample:
    """The sample that is in the bytes of an image file; the error of one that is not calls it ``name``."""
    try:
        return Sample(decode_image(data, decoding), xxhash.xxh64_intdigest(data))
    except Exception as error:  # Pillow's decoders raise anything for damaged bytes
        # Pillow names the buffer it was given, which says nothing.
        why = "not an image that Pillow knows" if "BytesIO" in str(error) else error
        raise DataError(f"cannot read image {name} ({len(data):,} bytes): {why}") from error


def decode_image(data: bytes, decoding: Decoding = NEWEST) -> Tensor:
    """Any image file Pillow knows to uint8 [3, H, W]: grey, palette, alpha, 16-bit and float become RGB.

    ``decoding``: the rule, as a cache records it; by the newest one pictures are turned upright.
    """
    with warnings.catch_warnings():
        # Odd metadata is no news; a picture that cannot be decoded raises.
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(data)) as image:
            pixels = np.array(as_rgb(image, decoding))
    return as_tensor(pixels)
