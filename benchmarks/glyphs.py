"""A data set of several hundred classes from installed fonts: Latin, Greek and Cyrillic characters.

    python -m benchmarks.glyphs OUT [--size 32] [--train-families 120] [--val-families 40]

writes OUT/train and OUT/val, one folder per character, no font family in both. ``--packages`` names Debian's
packages of fonts: ``apt-get install --no-install-recommends $(python -m benchmarks.glyphs --packages)``.
"""

from __future__ import annotations

import argparse
import os
import random
import unicodedata
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

FONT_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/share/texmf/fonts"))
BLOCKS = [(0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x17F), (0x386, 0x3CE), (0x400, 0x45F)]
LEAST_COVERAGE = 0.75
"""Of the characters, for a family to count: what it lacks is left out."""
FACES_PER_FAMILY = 2
PACKAGES = (
    "adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis adf-libris "
    "adf-mekanus adf-oldania adf-romande adf-solothurn adf-switzera adf-tribun adf-universalis "
    "adf-verana agave anonymous-pro arkpandora averia-gwf averia-sans-gwf averia-serif-gwf b612 "
    "cabin cantarell cardo clear-sans cmu comfortaa comic-neue courier-prime croscore "
    "crosextra-caladea crosextra-carlito dejavu-core dejavu-extra dosis dustin ebgaramond "
    "ebgaramond-extra elstob eurofurence fantasque-sans firacode freefont-ttf georgewilliams "
    "gfs-artemisia gfs-baskerville gfs-bodoni-classic gfs-complutum gfs-didot gfs-didot-classic "
    "gfs-gazis gfs-neohellenic gfs-olga gfs-porson gfs-solomos gfs-theokritos go hack hermit "
    "inconsolata inter jetbrains-mono junicode jura lato league-mono liberation2 linex "
    "linuxlibertine lmodern manrope millimetre monofur monoid mononoki noto-core noto-mono "
    "oldstandard open-sans opendyslexic osifont paratype play prociono quattrocento roboto-slab "
    "roboto-unhinted routed-gothic sil-andika sil-charis sil-doulos sil-gentium sil-gentiumplus stix "
    "texgyre tuffy unifont urw-base35 vlgothic vollkorn wqy-microhei yanone-kaffeesatz "
)


@dataclass(frozen=True)
class Face:
    """One font file and what it can draw."""

    path: str
    number: int
    """Of the face, in files that hold several."""
    family: str
    codes: frozenset[int]


def characters() -> list[int]:
    """The code points: letters, digits and signs that leave ink, no two the same under compatibility."""
    codes = [code for first, last in BLOCKS for code in range(first, last + 1)]
    return [code for code in codes if unicodedata.category(chr(code))[0] in "LNPS" and code != 0xAD]


def read_face(path: Path) -> Face | None:
    """The first face of a file, None where it is not a scalable font of enough of the characters."""
    wanted = frozenset(characters())
    try:
        with TTFont(path, fontNumber=0, lazy=True) as font:
            family = font["name"].getDebugName(16) or font["name"].getDebugName(1) or path.stem
            codes = wanted & font.getBestCmap().keys()
    except (TTLibError, OSError, KeyError, AttributeError, AssertionError):
        return None
    return Face(str(path), 0, family, codes) if len(codes) >= LEAST_COVERAGE * len(wanted) else None


def families() -> dict[str, list[Face]]:
    """Installed families that cover most of the characters, by name."""
    files = sorted(
        file
        for folder in FONT_FOLDERS
        for file in folder.rglob("*")
        if file.suffix in (".ttf", ".otf", ".ttc")
    )
    found: dict[str, list[Face]] = defaultdict(list)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for face in pool.map(read_face, files, chunksize=16):
            if face is not None:
                found[family_key(face.family)].append(face)
    return {name: spread(faces) for name, faces in sorted(found.items())}


def family_key(name: str) -> str:
    """Cuts of one design count as one family: Noto Sans Mono and Noto Sans Display are Noto Sans."""
    return " ".join(name.split()[:2]).casefold()


def spread(faces: list[Face]) -> list[Face]:
    """A few faces of a family, far apart in its list: upright and slanted, light and bold."""
    if len(faces) <= FACES_PER_FAMILY:
        return faces
    step = (len(faces) - 1) / (FACES_PER_FAMILY - 1)
    return [faces[round(index * step)] for index in range(FACES_PER_FAMILY)]


def draw(face: Face, code: int, size: int) -> Image.Image | None:
    """Black on white, at the font's own proportions; None without ink, or for a font of bitmaps."""
    picture = Image.new("L", (size, size), 255)
    try:
        font = ImageFont.truetype(face.path, round(0.62 * size), index=face.number)
        ImageDraw.Draw(picture).text((size / 2, 0.72 * size), chr(code), fill=0, font=font, anchor="ms")
    except (OSError, ValueError):
        return None
    return picture if picture.getextrema()[0] < 128 else None


def write_face(folder: Path, size: int, numbered: tuple[int, Face]) -> int:
    """All characters of a face into their class folders; how many."""
    number, face = numbered
    written = 0
    for code in sorted(face.codes):
        picture = draw(face, code, size)
        if picture is not None:
            picture.save(folder / f"U+{code:04X}" / f"{number:04d}.png")
            written += 1
    return written


def write(out: Path, size: int, train: int, val: int, seed: int = 0) -> dict[str, int]:
    """Both parts; the number of pictures of each."""
    found = families()
    names = sorted(found)
    random.Random(seed).shuffle(names)
    if len(names) < train + val:
        raise SystemExit(
            f"{len(names)} font families found, {train + val} asked for: install more fonts (--packages), "
            "or ask for fewer with --train-families and --val-families"
        )
    parts = {"val": names[:val], "train": names[val : val + train]}
    counts = {}
    for part, chosen in parts.items():
        for code in characters():
            (out / part / f"U+{code:04X}").mkdir(parents=True, exist_ok=True)
        faces = list(enumerate(face for name in chosen for face in found[name]))
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            counts[part] = sum(pool.map(partial(write_face, out / part, size), faces))
    return counts


def command() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, default=32, help="pixels (default 32)")
    parser.add_argument("--train-families", type=int, default=120)
    parser.add_argument("--val-families", type=int, default=40)
    parser.add_argument("--packages", action="store_true", help="print the Debian packages of fonts")
    given = parser.parse_args()
    if given.packages:
        print(" ".join(f"fonts-{name}" for name in PACKAGES.split()))
    elif given.out is None:
        parser.error("OUT is missing")
    else:
        counts = write(given.out, given.size, given.train_families, given.val_families)
        pictures = f"{counts['train']:,} training and {counts['val']:,} held-out pictures"
        print(f"{len(characters())} classes: {pictures}")


if __name__ == "__main__":
    command()
