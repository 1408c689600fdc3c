"""Raw records to dense teacher logits, on whatever device they lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cache_builder.format import FormatError, Manifest, RecordLayout
from cache_builder.format.class_sketch import NIBBLE, ORDER_GAP
from cache_builder.format.layout import Field
from cache_builder.format.manifest import CodecSection, SketchSection
from cache_builder.format.topk_tail import VALUE_LEVELS
from cache_builder.tensors.float32 import full_float32

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
    records may be on any device it is on. Computes in full float32, without gradients, whatever autocast and
    ``torch.set_float32_matmul_precision`` say. Equal to ``cache_builder.format.codec.decode`` up to float32
    rounding; invalid records decode to NaN.
    """

    mean: Tensor
    basis: Tensor
    centres: Tensor
    usual: Tensor | None

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.codec = manifest.codec
        self.layout = RecordLayout(manifest.codec)
        self.classes = manifest.classes
        # Not persistent: they belong to the cache, not to a student that holds the decoder.
        self.register_buffer("mean", torch.from_numpy(manifest.basis.mean.copy()), persistent=False)
        self.register_buffer("basis", torch.from_numpy(manifest.basis.basis.copy()), persistent=False)
        sketched = isinstance(manifest.codec, SketchSection)
        centres = torch.from_numpy(manifest.basis.centres.copy()) if sketched else None
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("usual", _usual_order(manifest), persistent=False)

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
        with full_float32(records.device):
            fields = {field.name: _column(records, field) for field in self.layout.fields}
            index = self._index(fields["topk_index"])
            if isinstance(self.codec, CodecSection):
                return self._topk_tail(self.codec, fields, index)
            return self._class_sketch(self.codec, fields, index)

    def _topk_tail(self, codec: CodecSection, fields: dict[str, Tensor], index: Tensor) -> Tensor:
        largest = fields["topk_max"]
        span = fields["topk_span"].float()
        parts = [fields[name].float() for name in ("tail_coef_wide", "tail_coef") if name in fields]
        sketch = self._sketch(torch.cat(parts, dim=1), codec.tail_step) if parts else self.mean[None]
        # No class outside the top K can exceed the K-th logit, whatever the sketch says.
        dense = torch.minimum(sketch, largest - span)
        values = largest - span * (fields["topk_value"] / VALUE_LEVELS)
        return dense.scatter_(1, index, values)

    def _class_sketch(self, codec: SketchSection, fields: dict[str, Tensor], index: Tensor) -> Tensor:
        parts = [fields[name].float() for name in ("tail_coef_wide", "tail_coef") if name in fields]
        if "tail_coef_packed" in fields:
            parts.append(_unpacked(fields["tail_coef_packed"], codec.tail_packed))
        coef = torch.cat(parts, dim=1) + self.centres[index[:, 0]]
        dense = self._sketch(coef, codec.tail_step)
        # Not a number where the record is invalid, which makes every class so.
        invalid = fields["lse_above"].float() * 0
        values = dense.gather(1, index) + codec.value_step * fields["topk_residual"].float() + invalid
        # No class outside the top K reaches the K-th logit, whatever the sketch says.
        dense = torch.minimum(dense, values[:, -1:] - codec.value_step / ORDER_GAP)
        return dense.scatter_(1, index, values)

    def _sketch(self, coef: Tensor, step: float) -> Tensor:
        """What the sketch says about every class, [n, C]."""
        return torch.addmm(self.mean, coef * step, self.basis)

    def _index(self, stored: Tensor) -> Tensor:
        bits = 8 * stored.element_size()
        index: Tensor = stored.long() & (2**bits - 1)
        # On a CPU the check is free; elsewhere it would wait for the device, whose scatter checks as well.
        if index.device.type == "cpu" and index.numel() and int(index.max()) >= self.classes:
            raise FormatError(
                f"a record names class {int(index.max())} of {self.classes}: it is of another cache"
            )
        if self.usual is None:
            return index
        others = self.usual[index[:, :1], index[:, 1:]]
        return torch.cat([index[:, :1], others.long()], dim=1)


def _usual_order(manifest: Manifest) -> Tensor | None:
    """int32 [C, C] where ids are stored as places in the usual order of the best class."""
    codec = manifest.codec
    if not isinstance(codec, SketchSection) or codec.index_coding == "class":
        return None
    return torch.from_numpy(manifest.basis.ranking(codec.tail_step).astype(np.int32))


def _unpacked(packed: Tensor, count: int) -> Tensor:
    """Half bytes [n, ceil(count / 2)], even coefficients in the low halves, to coefficients [n, count]."""
    halves = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)
    return halves[:, :count].float() - (NIBBLE + 1)


def _column(records: Tensor, field: Field) -> Tensor:
    """One field of every record, [n, count]."""
    # clone, not contiguous: that one leaves the stride of a single row alone, which view then refuses.
    part = records[:, field.offset : field.offset + field.nbytes]
    raw = part.clone(memory_format=torch.contiguous_format)
    return raw.view(_VIEWED_AS[field.dtype.str])


class Restricted(nn.Module):
    """Some columns of a decoder's logits, as they are: a restriction and no renormalisation."""

    columns: Tensor

    def __init__(self, decoder: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def forward(self, records: Tensor) -> Tensor:
        """Records uint8 [n, record_bytes] to logits float32 [n, C']."""
        logits: Tensor = self.decoder(records)
        return logits.index_select(-1, self.columns)
