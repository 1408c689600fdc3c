"""Codec ``topk-tail`` in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from cache_builder.format.codecs.topk_tail import VALUE_LEVELS
from cache_builder.tensors.columns import bytes_of
from cache_builder.tensors.sketched import (
    SketchedDecoder,
    SketchedEncoder,
    integer_coefficients,
    integer_columns,
    largest,
    saturated,
)


class TopkTailEncoder(SketchedEncoder):
    """As ``TopkTail.encode``; a row with a logit that is not finite gets lse = NaN."""

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits float32 [n, C] to the bytes of each field, uint8 [n, nbytes]."""
        logits = self.settled(logits)
        index, values = largest(logits, self.top_k)
        lse = torch.where(logits.isfinite().all(dim=1), logits.logsumexp(dim=1), torch.nan)
        span = _ceil16(values[:, 0] - values[:, -1])
        scale = torch.where(span > 0, VALUE_LEVELS / span.float().clamp_min(1e-30), 0.0)
        steps = ((values[:, :1] - values) * scale[:, None]).round().clamp(0, VALUE_LEVELS)
        columns = {
            "topk_max": bytes_of(values[:, :1]),
            "lse": bytes_of(lse[:, None]),
            "topk_span": bytes_of(span[:, None]),
            "topk_index": self.index_column(index),
            "topk_value": steps.to(torch.uint8),
        }
        return columns | self._tail(logits)

    def _tail(self, logits: Tensor) -> dict[str, Tensor]:
        rank = len(self.basis)
        if not rank:
            return {}
        wide, narrow, _ = saturated(self.rounded(logits), self.wide, rank - self.wide)
        return integer_columns(wide, narrow)


class TopkTailDecoder(SketchedDecoder):
    """As ``TopkTail.decode``."""

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """Columns [n, count] to dense logits float32 [n, C]."""
        index = self.stored_index(fields["topk_index"])
        top, span = fields["topk_max"], fields["topk_span"].float()
        parts = integer_coefficients(fields)
        sketch = self.sketch(torch.cat(parts, dim=1)) if parts else self.mean[None]
        # No class outside the top K can exceed the K-th logit, whatever the sketch says.
        dense = torch.minimum(sketch, top - span)
        values = top - span * (fields["topk_value"] / VALUE_LEVELS)
        return dense.scatter_(1, index, values)


def _ceil16(span: Tensor) -> Tensor:
    """The smallest float16 not below ``span`` >= 0: adding one to the bits gives the next float."""
    rounded = span.to(torch.float16)
    bits = rounded.view(torch.int16) + (rounded.float() < span).to(torch.int16)
    return bits.view(torch.float16)
