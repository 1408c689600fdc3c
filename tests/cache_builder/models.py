"""Teachers for tests, as ``tests.cache_builder.models:NAME``: small, real, the same in every process."""

from __future__ import annotations

import time
from typing import ClassVar

import torch
from torch import Tensor, nn

CLASSES = 40


class SmallNet(nn.Module):
    """Two convolutions; logits spread by a few units, so that the tail sketch has something to do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 48, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(48, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return 30 * self.head(self.features(pixels).mean(dim=(2, 3)))


class Poisoned(SmallNet):
    """Gives NaN for pictures of a single colour."""

    def forward(self, pixels: Tensor) -> Tensor:
        logits = super().forward(pixels)
        flat = pixels.amax(dim=(2, 3)) == pixels.amin(dim=(2, 3))
        return torch.where(flat.all(dim=1)[:, None], torch.nan, logits)


def small(num_classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(11)
    return SmallNet(num_classes)


def other(num_classes: int = CLASSES) -> nn.Module:
    """As ``small``, with other weights."""
    torch.manual_seed(12)
    return SmallNet(num_classes)


class Failing(SmallNet):
    """Raises at the forward passes whose numbers, counted from one, are in ``at``."""

    at: ClassVar[set[int]] = set()
    passes: ClassVar[int] = 0

    def forward(self, pixels: Tensor) -> Tensor:
        Failing.passes += 1
        if Failing.passes in Failing.at:
            raise RuntimeError("the kernel does not like this batch")
        return super().forward(pixels)


def failing(num_classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(11)
    return Failing(num_classes)


def poisoned(num_classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(11)
    return Poisoned(num_classes)


def fixed_60() -> nn.Module:
    """Takes no argument, has 60 classes."""
    return small(60)


class _Enlarged(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner = small()
        self.factor = factor

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.inner(pixels) * self.factor
        return logits


def enlarged() -> nn.Module:
    """Finite logits whose span float16 cannot hold."""
    return _Enlarged(1e6)


def constant() -> nn.Module:
    """The same logits whatever it sees."""
    return _Enlarged(0.0)


class _Tokens(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(2)


def tokens() -> nn.Module:
    """Not a classifier: [batch, 3, pixels]."""
    return _Tokens()


class _OnlySquareOf16(SmallNet):
    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.shape[-1] == 16, "Wrong image height"
        return super().forward(pixels)


def only_16() -> nn.Module:
    """Refuses any other input size, as vision transformers do."""
    return _OnlySquareOf16(CLASSES)


def broken(num_classes: int = CLASSES) -> nn.Module:
    raise RuntimeError(f"no checkpoint for {num_classes} classes")


def not_a_module() -> str:
    return "a string"


not_callable = 3


class _Slow(SmallNet):
    """Takes its time, so that a signal meets it at work."""

    def forward(self, pixels: Tensor) -> Tensor:
        time.sleep(0.02)
        return super().forward(pixels)


def slow() -> nn.Module:
    torch.manual_seed(11)
    return _Slow(CLASSES)


class _HalfMasked(nn.Module):
    """Leaves one class out of the answer to every picture that is darker than grey."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small(10)

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.inner(pixels)
        dark = pixels[:, 0].mean((1, 2)) < 0
        return logits.masked_fill(dark[:, None] & (torch.arange(10) == 3), -1e9)


def half_masked() -> nn.Module:
    torch.manual_seed(11)
    return _HalfMasked()


class _Loud(SmallNet):
    """Logits that float16 does not hold."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) * 1e6


def loud(num_classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(11)
    return _Loud(num_classes)
