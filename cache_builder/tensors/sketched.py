"""What the torch twins of the codecs with a sketch have in common: mean, basis, masks, class ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache_builder.format import FormatError
from cache_builder.format.codecs.masking import MASKED_BELOW, ORDINARY, MaskSection
from cache_builder.format.codecs.sketched import INT8_MAX, INT16_MAX, Sketched
from cache_builder.tensors.columns import bytes_of, low_bytes, unsigned
from cache_builder.tensors.float32 import full_float32


class SketchedTwin(nn.Module):
    """Mean and basis as buffers that move with the module."""

    mean: Tensor
    basis: Tensor

    def __init__(self, codec: Sketched[Any]) -> None:
        super().__init__()
        self.classes = codec.width
        self.top_k, self.step = codec.settings.top_k, codec.settings.tail_step
        self.wide = codec.settings.tail_wide
        self.keep("mean", codec.mean)
        self.keep("basis", codec.basis)

    def keep(self, name: str, array: NDArray[Any]) -> None:
        """A copy of an array as a buffer, not persistent: it belongs to the cache, not to who holds this."""
        self.register_buffer(name, torch.from_numpy(np.array(array)), persistent=False)

    def sketch(self, coef: Tensor) -> Tensor:
        """What coefficients [n, r] in units of the step say about every class [n, C]."""
        return torch.addmm(self.mean, coef * self.step, self.basis)


class SketchedEncoder(SketchedTwin):
    """Logits [n, C] to the bytes of each field: the base of the encoders."""

    def __init__(self, codec: Sketched[Any]) -> None:
        super().__init__(codec)
        self.masks = codec.settings.masks
        self.index_bytes = codec.settings.index_bits // 8

    def settled(self, logits: Tensor) -> Tensor:
        """As ``Codec.settled``."""
        return settled(logits, self.masks, self.mean)

    def rounded(self, logits: Tensor) -> Tensor:
        """Coefficients [n, r] of logits in units of the step, as whole floats."""
        # The coefficients are what the tail is rebuilt from.
        with full_float32(logits.device):
            coef: Tensor = (logits - self.mean) @ self.basis.T / self.step
            return coef.round()

    def index_column(self, index: Tensor) -> Tensor:
        """The bytes of K numbers [n, K] that are below C."""
        return low_bytes(index, self.index_bytes)


def settled(logits: Tensor, masks: MaskSection | None, mean: Tensor) -> Tensor:
    """As ``Codec.settled``: logits [n, C] with masks at what they decode to."""
    if masks is None:
        return logits
    ordinary = logits.amax(dim=1, keepdim=True).abs() < ORDINARY
    masked = logits.isneginf() | ((logits <= MASKED_BELOW) & ordinary)
    raised = logits.masked_fill(masked, masks.floor)
    constant = torch.where(masked, mean, torch.nan)
    return torch.where(mean <= MASKED_BELOW, constant, raised)


class SketchedDecoder(SketchedTwin):
    """Columns to dense logits [n, C]: the base of the decoders."""

    def stored_index(self, column: Tensor) -> Tensor:
        """The K stored numbers [n, K]; :class:`FormatError` on a CPU for one that no class has."""
        index = unsigned(column)
        # On a CPU the check is free; elsewhere it would wait for the device, whose scatter checks as well.
        if index.device.type == "cpu" and index.numel() and int(index.max()) >= self.classes:
            raise FormatError(
                f"a record names class {int(index.max())} of {self.classes}: it is of another cache"
            )
        return index


def integer_columns(wide: Tensor, narrow: Tensor) -> dict[str, Tensor]:
    """The bytes of saturated coefficients: int16 ones, then int8 ones."""
    return {
        "tail_coef_wide": bytes_of(wide.to(torch.int16)),
        "tail_coef": bytes_of(narrow.to(torch.int8)),
    }


def saturated(coef: Tensor, wide: int, narrow: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients [n, r] as the first int16 ones, the int8 ones after them, both clamped, and the rest."""
    end = wide + narrow
    return (
        coef[:, :wide].clamp(-INT16_MAX, INT16_MAX),
        coef[:, wide:end].clamp(-INT8_MAX, INT8_MAX),
        coef[:, end:],
    )


def integer_coefficients(fields: dict[str, Tensor]) -> list[Tensor]:
    """The inverse of :func:`integer_columns`, as floats; fields that the record lacks are left out."""
    return [fields[name].float() for name in ("tail_coef_wide", "tail_coef") if name in fields]


def largest(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Class ids and logits of the K largest, largest first, equal logits by class id.

    ``topk`` on logits takes any of several equal ones, and bf16 logits are often equal, so it runs on
    integers that are all different: the float's bits in an order that integers have, then the class id.
    """
    bits = (logits + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the 0.0 it is equal to
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    keys = (ordered << 32) - torch.arange(logits.shape[1], device=logits.device)
    index = keys.topk(k, dim=1).indices
    return index, logits.gather(1, index)
