"""uint8 pictures to what a network takes: ``(x / 255 - mean) / std``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [B, 3, S, S] on any device to float32, for the teacher.

    Stored records rest on the rounding of these very operations, so their order stays.
    """
    shape = (1, 3, 1, 1)
    centre = torch.tensor(mean, device=images.device).view(shape)
    scale = torch.tensor(std, device=images.device).view(shape)
    return (images.float() / 255 - centre) / scale


class Normalise(nn.Module):
    """uint8 [B, 3, S, S] to float32, for a student, on the device that the module is on.

    ``mean`` and ``std``: a number per colour, of pixels between 0 and 1. The teacher's are in a cache's
    manifest: ``Normalise(cache.manifest.input.mean, cache.manifest.input.std).to(device)``. The result is
    that of :func:`normalise` up to the last bits of a float32.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        deviation = torch.tensor(std).view(1, 3, 1, 1)
        # One multiplication and one addition; buffers, so that no step copies constants to the device.
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, 3, 1, 1) / deviation, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float32 of the same shape."""
        return images.float() * self.scale + self.shift
