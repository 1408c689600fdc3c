"""JPEG decoding: images a second on one core, and what a reduced decode (Pillow's draft) changes."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg

from benchmarks.report import alternate, write_results
from cache_builder.datasets.decoding import decode_image
from cache_builder.views import draw
from cache_builder.views.apply import apply
from cache_builder.views.recipes import RrcFlip
from tests.cache_builder.photographs import bundled

TARGET = 224
LONG_SIDES = (500, 1000, 2000)
ROUNDS = 5
VIEWS = 8
SEED = 3
TOLERANCE = 2.0

NOTES = f"""
Six photographs (scikit-image, scikit-learn) as JPEG, quality 90, resized to the long side; "mosaic" is 16
of them side by side, which has the detail of a real photograph of its size where an enlarged one is soft.
One thread; processor time, medians of {ROUNDS} rounds taken in turn; "with a view" adds rendering one
{TARGET} px view (rrc-flip, bilinear, antialiased), which is cheaper on a smaller picture.

Draft asks libjpeg for 1/2, 1/4 or 1/8 of the size, where the smallest crop of the views that are wanted
stays at least that many times the target: one view (x1 and x2), or the smallest of {VIEWS} views, as one
decode serves them all in a build. Differences are in levels of 255 between views of the full and of the
other decode, over {VIEWS} views of every photograph; "changed" is the share of views with another decode
than now. "Worst view" is the largest mean of a view: what the render probe would compare with its tolerance
of {TOLERANCE:g}.

Findings (2026-11-25): draft is up to 1.8 times as fast on pictures of 2,000 px and does nothing for those
of 500 px (ImageNet's size), but its views differ by more than the tolerance (probably since crops are
rounded to coarser pixels and libjpeg's small inverse transform is not the recipe's antialias filter; not
taken apart): it is not used. The decoder of torchvision gives the same pixels here, 1.2 to 1.5 times as
fast; it reads JPEG only, and its version of libjpeg may differ from Pillow's elsewhere: a candidate for
an option. Digests and ids are of the file's bytes and depend on no decoder. Other work shared the two
cores.
"""


class Photo(NamedTuple):
    """A JPEG file and the crops of its views."""

    data: bytes
    row: int
    height: int
    width: int


class Decoder(NamedTuple):
    """A way to decode a photograph for one of its views."""

    name: str
    decode: Callable[[Photo, int], Tensor]
    """(photograph, view) to uint8 [3, H, W]."""


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(1)
    rows = [row for kind, photos in sets().items() for row in compare(kind, photos)]
    columns = ["photographs", "decoder", "images/s", "with a view", "against full", "changed",
               "mean difference", "worst view", "largest"]  # fmt: skip
    write_results("decode", "JPEG decoding on one core", columns, rows, NOTES)


def sets() -> dict[str, list[Photo]]:
    """Photographs by kind."""
    pictures = [Image.fromarray(picture) for picture in bundled()]
    found = {f"{side} px": [_resized(picture, side) for picture in pictures] for side in LONG_SIDES}
    found[f"{LONG_SIDES[-1]} px mosaic"] = [_mosaic(pictures, index) for index in range(len(pictures))]
    return {
        kind: [Photo(_jpeg(image), row, image.height, image.width) for row, image in enumerate(images)]
        for kind, images in found.items()
    }


def compare(kind: str, photos: list[Photo]) -> Iterator[list[object]]:
    """A line for each decoder."""
    decoders = [
        Decoder("Pillow, full (as now)", lambda photo, _: decode_image(photo.data)),
        Decoder("Pillow, draft for a view, x1", lambda photo, view: drafted(photo, [view], 1)),
        Decoder("Pillow, draft for a view, x2", lambda photo, view: drafted(photo, [view], 2)),
        Decoder(f"Pillow, draft for {VIEWS} views, x1", lambda photo, _: drafted(photo, range(VIEWS), 1)),
        Decoder("torchvision.io.decode_jpeg", lambda photo, _: torchvision_decode(photo.data)),
    ]
    alone = alternate({d.name: lambda d=d: timed(d, photos, rendered=False) for d in decoders}, ROUNDS)
    with_view = alternate({d.name: lambda d=d: timed(d, photos, rendered=True) for d in decoders}, ROUNDS)
    full = statistics.median(with_view[decoders[0].name])
    count = len(photos) * VIEWS
    for decoder in decoders:
        seconds, whole = (statistics.median(found[decoder.name]) for found in (alone, with_view))
        yield [
            kind,
            decoder.name,
            count / seconds,
            count / whole,
            full / whole,
            *differences(decoder, photos),
        ]


def timed(decoder: Decoder, photos: list[Photo], rendered: bool) -> float:
    """Processor seconds for every photograph in every view: other work on the machine does not count."""
    begun = time.process_time()
    for photo in photos:
        for view in range(VIEWS):
            image = decoder.decode(photo, view)
            if rendered:
                render(image, photo, view)
    return time.process_time() - begun


def differences(decoder: Decoder, photos: list[Photo]) -> list[object]:
    """Share of views with another decode than now; their mean, worst and largest difference."""
    found = []
    for photo in photos:
        full = decode_image(photo.data)
        for view in range(VIEWS):
            image = decoder.decode(photo, view)
            is_same = decoder.name.startswith("Pillow") and image.shape == full.shape
            if not is_same:
                ours, theirs = (render(one, photo, view).int() for one in (full, image))
                found.append((ours - theirs).abs().float())
    if not found:
        return [0.0, "", "", ""]
    means = [float(difference.mean()) for difference in found]
    largest = max(float(difference.max()) for difference in found)
    return [len(found) / (len(photos) * VIEWS), statistics.mean(means), max(means), largest]


def render(image: Tensor, photo: Photo, view: int) -> Tensor:
    """The recorded view of a photograph, uint8 [3, 224, 224]."""
    return apply(image, draw(RrcFlip(), SEED, view, np.array([photo.row])), 0, TARGET, "bilinear")


def drafted(photo: Photo, views: range | list[int], times: int) -> Tensor:
    """Decode at the smallest of libjpeg's sizes that leaves every view's crop ``times`` the target."""
    smallest = min(_crop_side(photo, view) for view in views)
    reduce = next((n for n in (8, 4, 2) if smallest >= n * times * TARGET), 1)
    with Image.open(io.BytesIO(photo.data)) as image:
        if reduce > 1:
            image.draft("RGB", (-(-photo.width // reduce), -(-photo.height // reduce)))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def torchvision_decode(data: bytes) -> Tensor:
    """libjpeg-turbo by way of torchvision."""
    image: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return image


def _crop_side(photo: Photo, view: int) -> int:
    params = draw(RrcFlip(), SEED, view, np.array([photo.row]))
    box = params.recipe.box(params.crop[0], photo.height, photo.width)
    return min(box.height, box.width)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _mosaic(pictures: list[Image.Image], first: int) -> Image.Image:
    """4 x 4 photographs of 500 x 375."""
    whole = Image.new("RGB", (2000, 1500))
    for place in range(16):
        piece = pictures[(first + place) % len(pictures)].resize((500, 375), Image.Resampling.BICUBIC)
        whole.paste(piece, (place % 4 * 500, place // 4 * 375))
    return whole


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
