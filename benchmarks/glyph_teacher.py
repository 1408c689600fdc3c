"""Teachers and a half-trained student of the rendered characters: real logits of several hundred classes.

    python -m benchmarks.glyphs /tmp/glyphs
    python -m benchmarks.glyph_teacher /tmp/glyphs            trains narrow, wide and student

``benchmarks.glyph_teacher:narrow`` and ``:wide`` are factories for ``kdcache build --teacher``; the weights
lie beside the pictures (``OUT/narrow.safetensors``).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cache_builder.datasets import open_source

CLASSES = 482
BATCH = 256


@dataclass(frozen=True)
class Shape:
    """A network of this file and how long it is trained."""

    channels: int
    """Of the first stage; each later one has twice as many."""
    width: int
    """Of the penultimate layer: 192 is narrower than the classes, 1,024 wider."""
    epochs: float
    smoothing: float = 0.0
    """Of the labels: it flattens what a teacher says about the other classes."""


SHAPES = {
    "narrow": Shape(24, 192, 5),
    "wide": Shape(24, 1024, 5),
    "smoothed": Shape(40, 192, 10, smoothing=0.1),
    # Short enough to know about half of what a teacher knows.
    "student": Shape(16, 128, 2.0),
}


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape in and out."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(inner)))


def network(shape: Shape) -> nn.Module:
    """A small residual network for pictures of 32 pixels."""
    a, b, c = shape.channels, 2 * shape.channels, 4 * shape.channels

    def down(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *down(3, a), Residual(a), *down(a, b), Residual(b), *down(b, c), Residual(c),
        nn.Conv2d(c, shape.width, 1, bias=False), nn.BatchNorm2d(shape.width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape.width, CLASSES),
    )  # fmt: skip


def narrow() -> nn.Module:
    """Penultimate width 192: the logits have rank 193 at most."""
    return network(SHAPES["narrow"])


def wide() -> nn.Module:
    """Penultimate width 1,024, more than there are classes."""
    return network(SHAPES["wide"])


def smoothed() -> nn.Module:
    """Narrow, trained with label smoothing, as many published weights are."""
    return network(SHAPES["smoothed"])


def student() -> nn.Module:
    """A small network, trained for a short time."""
    return network(SHAPES["student"])


def load_pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Every picture of an image folder: uint8 [N, 3, 32, 32] and labels int64 [N]."""
    source = open_source(f"imagefolder:{folder}")
    labels = source.labels
    assert labels is not None
    images = np.stack([source.read(index).value[:1].numpy() for index in range(len(source))])
    return torch.from_numpy(images).expand(-1, 3, -1, -1), torch.from_numpy(labels.astype(np.int64))


def augmented(images: Tensor, rng: torch.Generator) -> Tensor:
    """Random scale, position, slant and turn: uint8 [n, 3, S, S] to float in -1..1."""
    n = len(images)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    angle, scale, shear, aspect = (
        between(-0.2, 0.2),
        between(0.75, 1.2),
        between(-0.2, 0.2),
        between(0.85, 1.15),
    )
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack(
        [scale * aspect * cos, scale * (shear - sin), between(-0.2, 0.2),
         scale * sin, scale * cos / aspect, between(-0.2, 0.2)], dim=1,
    ).view(n, 2, 3)  # fmt: skip
    grid = functional.affine_grid(rows, [n, 3, *images.shape[-2:]], align_corners=False)
    # Paper is white outside the picture too.
    ink = 1 - images.float() / 255
    return 1 - 2 * functional.grid_sample(ink, grid, align_corners=False)


def train(shape: Shape, images: Tensor, labels: Tensor) -> nn.Module:
    """AdamW with one cycle."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    model = network(shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = round(shape.epochs * len(images) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    started = time.monotonic()
    for step in range(steps):
        if step % (len(images) // BATCH) == 0:
            order = torch.randperm(len(images), generator=rng)
        start = step * BATCH % (len(images) - BATCH)
        chosen = order[start : start + BATCH]
        optimizer.zero_grad()
        logits = model(augmented(images[chosen], rng).contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=shape.smoothing)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True
            )
    return model.eval()


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor, seed: int | None) -> NDArray[np.float32]:
    """Logits [N, C], of augmented pictures where a seed is given."""
    rng = torch.Generator().manual_seed(seed or 0)
    batches = (part if seed is not None else part.float() / 127.5 - 1 for part in images.split(512))
    out = [model(augmented(part, rng) if seed is not None else part) for part in batches]
    found: NDArray[np.float32] = torch.cat(out).float().numpy()
    return found


def command() -> None:
    """Train what was asked for and say how good it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what benchmarks.glyphs wrote")
    parser.add_argument("names", nargs="*", default=list(SHAPES), help="narrow, wide, student")
    given = parser.parse_args()
    train_all(given.folder, given.names)


def train_all(folder: Path, names: list[str]) -> None:
    """Train networks of this file, keep their weights beside the pictures, print how good they are."""
    images, labels = load_pictures(folder / "train")
    held_out, held_out_labels = load_pictures(folder / "val")
    for name in names:
        model = train(SHAPES[name], images, labels)
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        for what, seed in (("as they are", None), ("augmented", 7)):
            right = logits_of(model, held_out, seed).argmax(1) == held_out_labels.numpy()
            print(f"{name}: {right.mean():.1%} of {len(right):,} held-out pictures ({what})", flush=True)


if __name__ == "__main__":
    command()
