"""Raw records to dense teacher logits, on whatever device they lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cache_builder.format import FormatError, Manifest, RecordLayout
from cache_builder.format.codec import VALUE_LEVELS
from cache_builder.format.layout import Field

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


class RecordDecoder(nn.Module):
    """``uint8 [n, record_bytes]`` to ``float32 [n, C]``: one small matrix product, one scatter.

    Takes a manifest with its tail basis (``TeacherCache.open(url).manifest``). Move it like any module;
    records may be on any device it is on. Computes in float32 under autocast too, without gradients. Equal
    to ``cache_builder.format.codec.decode`` up to float32 rounding; invalid records decode to NaN.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.layout = RecordLayout(manifest.codec)
        self.classes = manifest.data.classes
        self.step = float(manifest.codec.tail_step)
        # Not persistent: they belong to the cache, not to a student that holds the decoder.
        self.register_buffer("mean", torch.from_numpy(manifest.basis.mean.copy()), persistent=False)
        self.register_buffer("basis", torch.from_numpy(manifest.basis.basis.copy()), persistent=False)

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return self.layout.record_bytes

    @torch.no_grad()
    def forward(self, records: Tensor) -> Tensor:
        """Dense logits. Raises :class:`FormatError` for anything but uint8 [n, record_bytes]."""
        if records.dtype != torch.uint8 or records.ndim != 2 or records.shape[1] != self.record_bytes:
            raise FormatError(
                f"expected records uint8 [n, {self.record_bytes}], got {records.dtype} "
                f"{list(records.shape)}: are they of another cache?"
            )
        with torch.autocast(records.device.type, enabled=False):
            fields = {field.name: _column(records, field) for field in self.layout.fields}
            return self._dense(fields)

    def _dense(self, fields: dict[str, Tensor]) -> Tensor:
        largest = fields["topk_max"]
        span = fields["topk_span"].float()
        # No class outside the top K can exceed the K-th logit, whatever the sketch says.
        dense = torch.minimum(self._sketch(fields), largest - span)
        values = largest - span * (fields["topk_value"] / VALUE_LEVELS)
        return dense.scatter_(1, self._index(fields["topk_index"]), values)

    def _sketch(self, fields: dict[str, Tensor]) -> Tensor:
        """What the tail says about every class, [n, C] or [1, C]."""
        parts = [fields[name].float() for name in ("tail_coef_wide", "tail_coef") if name in fields]
        if not parts:
            return self.mean[None]
        coefficients = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return torch.addmm(self.mean, coefficients * self.step, self.basis)

    def _index(self, stored: Tensor) -> Tensor:
        bits = 8 * stored.element_size()
        index: Tensor = stored.long() & (2**bits - 1)
        # On a CPU the check is free; elsewhere it would wait for the device, whose scatter checks as well.
        if index.device.type == "cpu" and index.numel() and int(index.max()) >= self.classes:
            raise FormatError(
                f"a record names class {int(index.max())} of {self.classes}: it is of another cache"
            )
        return index


def _column(records: Tensor, field: Field) -> Tensor:
    """One field of every record, [n, count]."""
    # clone, not contiguous: that one leaves the stride of a single row alone, which view then refuses.
    part = records[:, field.offset : field.offset + field.nbytes]
    raw = part.clone(memory_format=torch.contiguous_format)
    return raw.view(_VIEWED_AS[field.dtype.str])
