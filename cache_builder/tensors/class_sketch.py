"""Codec ``class-sketch`` in torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cache_builder.format.codecs.class_sketch import ORDER_GAP, ClassSketch
from cache_builder.format.codecs.sketched import NIBBLE
from cache_builder.tensors.columns import bytes_of
from cache_builder.tensors.float32 import full_float32
from cache_builder.tensors.sketched import (
    SketchedDecoder,
    SketchedEncoder,
    integer_coefficients,
    integer_columns,
    largest,
    saturated,
)

_INTEGERS = {8: torch.int8, 16: torch.int16}


class ClassSketchEncoder(SketchedEncoder):
    """As ``ClassSketch.encode``; a row with a logit that is not finite gets lse_above = NaN."""

    centres: Tensor
    places: Tensor

    def __init__(self, codec: ClassSketch) -> None:
        super().__init__(codec)
        self.settings = codec.settings
        self.is_ranked = codec.is_ranked
        self.keep("centres", codec.centres)
        if codec.is_ranked:
            self.keep("places", codec.places.astype(np.int32))

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits float32 [n, C] to the bytes of each field, uint8 [n, nbytes]."""
        logits = self.settled(logits)
        index, values = largest(logits, self.top_k)
        above = torch.where(
            logits.isfinite().all(dim=1), _log_sum_exp_above(logits, index, values), torch.nan
        )
        usual = self.centres[index[:, 0]].float()
        coef = (self.rounded(logits) - usual).nan_to_num(0.0)
        wide, narrow, small = saturated(coef, self.wide, self.settings.tail_bytes)
        small = small.clamp(-NIBBLE, NIBBLE)
        with full_float32(logits.device):
            sketched = self.sketch(torch.cat([wide, narrow, small], dim=1) + usual).gather(1, index)
        return {
            "lse_above": bytes_of(above.to(torch.float16)[:, None]),
            "topk_index": self.index_column(self._coded(index)),
            "topk_residual": bytes_of(self._residuals(values, sketched)),
            **integer_columns(wide, narrow),
            "tail_coef_packed": _halves(small),
        }

    def _coded(self, index: Tensor) -> Tensor:
        """The best class id, and where the others stand in its usual order."""
        return _recoded(index, self.places) if self.is_ranked else index

    def _residuals(self, values: Tensor, sketched: Tensor) -> Tensor:
        """As ``class_sketch.residuals``: in value steps, and such that what they decode to falls."""
        step, limit = self.settings.value_step, self.settings.value_limit
        codes = ((values - sketched) / step).nan_to_num(0.0).round().clamp(-limit, limit)
        for k in range(1, self.top_k):
            before = sketched[:, k - 1] + step * codes[:, k - 1]
            most = ((before - step / ORDER_GAP - sketched[:, k]) / step).floor()
            codes[:, k] = torch.minimum(codes[:, k], most).clamp(-limit, limit)
        return codes.to(_INTEGERS[self.settings.value_bits])


class ClassSketchDecoder(SketchedDecoder):
    """As ``ClassSketch.decode``."""

    centres: Tensor
    ranking: Tensor

    def __init__(self, codec: ClassSketch) -> None:
        super().__init__(codec)
        self.value_step, self.packed = codec.settings.value_step, codec.settings.tail_packed
        self.is_ranked = codec.is_ranked
        self.keep("centres", codec.centres)
        if codec.is_ranked:
            self.keep("ranking", codec.ranking.astype(np.int32))

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """Columns [n, count] to dense logits float32 [n, C]."""
        index = self.stored_index(fields["topk_index"])
        if self.is_ranked:
            index = _recoded(index, self.ranking)
        parts = integer_coefficients(fields)
        if self.packed:
            parts.append(_unpacked(fields["tail_coef_packed"], self.packed))
        dense = self.sketch(torch.cat(parts, dim=1) + self.centres[index[:, 0]])
        # Not a number where the record is invalid, which makes every class so.
        invalid = fields["lse_above"].float() * 0
        values = dense.gather(1, index) + self.value_step * fields["topk_residual"].float() + invalid
        # No class outside the top K reaches the K-th logit, whatever the sketch says.
        dense = torch.minimum(dense, values[:, -1:] - self.value_step / ORDER_GAP)
        return dense.scatter_(1, index, values)


def _recoded(index: Tensor, table: Tensor) -> Tensor:
    """The first of each row [n, K], and what the table [C, C] has for it in the place of the others."""
    others = table[index[:, :1], index[:, 1:]]
    return torch.cat([index[:, :1], others.long()], dim=1)


def _log_sum_exp_above(logits: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """As ``fields.log_sum_exp_above``."""
    others = (logits - values[:, :1]).exp().scatter(1, index[:, :1], 0.0)
    return others.sum(dim=1).log1p()


def _halves(coef: Tensor) -> Tensor:
    """As ``sketched.pack_halves``."""
    padded = nn.functional.pad(coef, (0, coef.shape[1] % 2)) + (NIBBLE + 1)
    return (padded[:, ::2] + 16 * padded[:, 1::2]).to(torch.uint8)


def _unpacked(packed: Tensor, count: int) -> Tensor:
    """Half bytes [n, ceil(count / 2)], even coefficients in the low halves, to coefficients [n, count]."""
    halves = torch.stack([packed & 15, packed >> 4], dim=2).flatten(1)
    return halves[:, :count].float() - (NIBBLE + 1)
