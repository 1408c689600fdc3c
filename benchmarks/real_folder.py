"""An image folder of some thousand real pictures, from Debian and pip packages alone.

    apt-get install tuxpaint-stamps-default opencv-doc lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 \\
        mate-backgrounds gnome-backgrounds plasma-workspace-wallpapers ukui-wallpapers
    python -m benchmarks.real_folder OUT

Wallpapers are cut into crops that do not overlap; most are photographs, and drawn ones give fewer crops.
Stamps stand on a grey ground once and on a piece of a photograph twice. A picture's name begins with what it
was cut from, so that those of one origin can be kept together. The same packages give the same pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.real_pictures import STAMPS

WALLPAPERS = ("/usr/share/backgrounds", "/usr/share/wallpapers")
SAMPLES = "/usr/share/doc/opencv-doc/examples/data"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
SIDE = 320
_SHORT_SIDE = 1440
"""Wallpapers are shrunk to this: a crop of a larger one shows a surface and no thing."""
_CROPS = {"photographs": 30, "drawings": 6, "samples": 4}
"""The most crops that one picture gives."""
_LEAST_CONTRAST = 12.0
"""Standard deviation of grey levels; plain sky is no picture."""
_SAME = 6.0
"""Mean difference of the thumbnails' grey levels below which two files are one picture."""
_NO_PICTURES = ("symbols",)
"""Folders of stamps that show letters and flags."""


@dataclass(frozen=True)
class Origin:
    """A picture that others are made of."""

    name: str
    kind: str
    """One of ``_CROPS``; it names the folder."""
    picture: Image.Image


def write_folder(root: Path) -> int:
    """Write every picture as ``KIND/ORIGIN-NN.jpg``; their number is returned."""
    count, grounds = 0, []
    for origin in _distinct(_origins()):
        crops = list(_crops(origin))
        count += _save(crops, root / origin.kind, origin.name)
        grounds += crops[:4] if origin.kind == "photographs" else []
    if not grounds:
        raise SystemExit("no wallpapers: install the packages that this file names")
    for index, stamp in enumerate(_stamps()):
        name = "_".join(stamp.relative_to(STAMPS).with_suffix("").parts)
        count += _save(_placements(stamp, index, grounds), root / "stamps", name)
    return count


def _origins() -> Iterator[Origin]:
    for folder in WALLPAPERS:
        for path in _largest_first(folder):
            kind = "photographs" if path.suffix == ".jpg" else "drawings"
            yield Origin(_name(path, Path(folder)), kind, _opened(path))
    for path in _largest_first(SAMPLES):
        yield Origin(_name(path, Path(SAMPLES)), "samples", _opened(path))
    yield from _of_libraries()


def _of_libraries() -> Iterator[Origin]:
    """The pictures that scikit-image and scikit-learn bring along."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    for path in sorted(Path(skimage.data.__file__).parent.iterdir()):
        if path.suffix in ENDINGS:
            yield Origin(f"skimage_{path.stem}", "samples", _opened(path))
    found = load_sample_images()
    for name, pixels in zip(found.filenames, found.images, strict=True):
        yield Origin(f"sklearn_{Path(name).stem}", "samples", Image.fromarray(pixels))


def _largest_first(folder: str) -> list[Path]:
    """Files, not links to others: of the sizes of one wallpaper the largest is the one that stays."""
    files = [path for path in Path(folder).rglob("*") if path.suffix in ENDINGS and not path.is_symlink()]
    return sorted(files, key=lambda path: (-path.stat().st_size, str(path)))


def _name(path: Path, folder: Path) -> str:
    """The file's own, or of a wallpaper in many sizes that of its folder."""
    inner = path.relative_to(folder).parts
    return inner[0] + ("_dark" if "images_dark" in inner else "") if "contents" in inner else path.stem


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as file:
        # A JPEG is read at a smaller size at once where that is enough.
        file.draft("RGB", (2 * _SHORT_SIDE, 2 * _SHORT_SIDE))
        return file.convert("RGB")


def _distinct(origins: Iterator[Origin]) -> Iterator[Origin]:
    """Without those that are other sizes or near copies of one that came before."""
    thumbnails: list[NDArray[np.float32]] = []
    names: set[str] = set()
    for origin in origins:
        if origin.name in names:
            continue
        small = np.asarray(origin.picture.convert("L").resize((16, 16)), np.float32)
        if small.std() > _LEAST_CONTRAST / 2 and all(np.abs(small - o).mean() > _SAME for o in thumbnails):
            thumbnails.append(small)
            names.add(origin.name)
            yield origin


def _crops(origin: Origin) -> Iterator[Image.Image]:
    """Squares that do not overlap, those with the most contrast first."""
    picture = origin.picture
    scale = min(1.0, _SHORT_SIDE / min(picture.size))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    side = min(SIDE, *picture.size)
    places = [
        (left, top)
        for top in range(0, picture.height - side + 1, side)
        for left in range(0, picture.width - side + 1, side)
    ]
    cut = [picture.crop((left, top, left + side, top + side)) for left, top in places]
    contrast = [float(np.asarray(crop.convert("L"), np.float32).std()) for crop in cut]
    for index in np.argsort([-value for value in contrast], kind="stable")[: _CROPS[origin.kind]]:
        if contrast[index] >= _LEAST_CONTRAST:
            yield cut[index]


def _stamps() -> list[Path]:
    found = sorted(STAMPS.rglob("*.png"))
    return [path for path in found if path.relative_to(STAMPS).parts[0] not in _NO_PICTURES]


def _placements(stamp: Path, index: int, grounds: list[Image.Image]) -> Iterator[Image.Image]:
    """The stamp on grey and on two pieces of photographs, at several sizes and places."""
    with Image.open(stamp) as file:
        picture = file.convert("RGBA")
    generator = np.random.default_rng(index)
    grey = int(generator.integers(60, 256))
    chosen = [grounds[int(generator.integers(len(grounds)))].resize((SIDE, SIDE)) for _ in range(2)]
    for ground in (Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)), *chosen):
        scale = SIDE * generator.uniform(0.45, 0.95) / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        place = [int(generator.integers(0, SIDE - side + 1)) for side in size]
        shown = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        ground.paste(shown, (place[0], place[1]), shown)
        yield ground


def _save(pictures: Iterable[Image.Image], folder: Path, name: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(pictures)
    for index, picture in enumerate(kept, 1):
        picture.save(folder / f"{name}-{index:02d}.jpg", quality=92)
    return len(kept)


def command() -> None:
    """Write the folder that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    print(f"{write_folder(parser.parse_args().out):,} pictures")


if __name__ == "__main__":
    command()
