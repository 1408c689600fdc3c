"""Raw records to dense teacher logits, on whatever device they lie, by whichever codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cache_builder.format import Codec, ConfigError, FormatError
from cache_builder.tensors.all_logits import AllLogitsDecoder
from cache_builder.tensors.class_sketch import ClassSketchDecoder
from cache_builder.tensors.columns import column_of
from cache_builder.tensors.float32 import full_float32
from cache_builder.tensors.joint_sketch import JointSketchDecoder
from cache_builder.tensors.topk_tail import TopkTailDecoder

DECODERS: dict[str, Callable[[Any], nn.Module]] = {
    "topk-tail": TopkTailDecoder,
    "class-sketch": ClassSketchDecoder,
    "joint-sketch": JointSketchDecoder,
    "all-logits": AllLogitsDecoder,
}
"""By codec name: from the codec, a module of columns [n, count] by field name to logits float32 [n, C]."""


class RecordDecoder(nn.Module):
    """``uint8 [n, record_bytes]`` to ``float32 [n, C]``: one small matrix product, one scatter.

    Takes what decodes a cache (``TeacherCache.open(url).codec``). Move it like any module; records may be on
    any device it is on. Computes in full float32, without gradients, whatever autocast and
    ``torch.set_float32_matmul_precision`` say. Equal to ``codec.decode`` up to float32 rounding; invalid
    records decode to NaN.
    """

    def __init__(self, codec: Codec[Any]) -> None:
        """Raises :class:`ConfigError` for what is no codec, and for one that torch has no decoder of."""
        super().__init__()
        settings = getattr(codec, "settings", None)
        if settings is None:
            raise ConfigError(
                f"RecordDecoder takes a codec, got {type(codec).__name__}: use TeacherCache.open(url).codec"
            )
        name = settings.name
        if name not in DECODERS:
            raise ConfigError(f"codec {name} has no decoder in torch: it needs one in DECODERS")
        self.layout = codec.layout
        self.twin = DECODERS[name](codec)

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
            fields = {field.name: column_of(records, field) for field in self.layout.fields}
            dense: Tensor = self.twin(fields)
        return dense


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
