"""Fields of records as tensors, and tensors as the bytes of fields."""

from __future__ import annotations

import torch
from torch import Tensor

from cache_builder.format.codecs.record import Field

# Unsigned fields are read as the signed type of their width, then masked: torch has few unsigned kernels.
_VIEWED_AS = {
    "<f4": torch.float32,
    "<f2": torch.float16,
    "<i2": torch.int16,
    "|i1": torch.int8,
    "|u1": torch.uint8,
    "<u2": torch.int16,
    "<u4": torch.int32,
}


def column_of(records: Tensor, field: Field) -> Tensor:
    """One field of packed records uint8 [n, record_bytes], as [n, count]."""
    # clone, not contiguous: that one leaves the stride of a single row alone, which view then refuses.
    part = records[:, field.offset : field.offset + field.nbytes]
    raw = part.clone(memory_format=torch.contiguous_format)
    return raw.view(_VIEWED_AS[field.dtype.str])


def unsigned(column: Tensor) -> Tensor:
    """A field of an unsigned type, as int64."""
    bits = 8 * column.element_size()
    values: Tensor = column.long() & (2**bits - 1)
    return values


def bytes_of(column: Tensor) -> Tensor:
    """A column [n, count] as its bytes uint8 [n, nbytes]."""
    return column.contiguous().view(torch.uint8)


def low_bytes(index: Tensor, width: int) -> Tensor:
    """The ``width`` low bytes of each int64 id (little-endian hosts, like every device torch runs on)."""
    spread = index.contiguous().view(torch.uint8).view(*index.shape, 8)
    return spread[..., :width].reshape(index.shape[0], -1)
