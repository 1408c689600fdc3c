"""Codec ``all-logits`` in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cache_builder.format.codecs.all_logits import LARGEST, AllLogits
from cache_builder.format.codecs.masking import LOWEST, MASKED_BELOW, ORDINARY
from cache_builder.tensors.columns import bytes_of

_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class AllLogitsTwin(nn.Module):
    """What encoder and decoder have in common."""

    def __init__(self, codec: AllLogits) -> None:
        super().__init__()
        self.kind, self.most = _TYPES[codec.settings.values], LARGEST[codec.settings.values]


class AllLogitsEncoder(AllLogitsTwin):
    """As ``AllLogits.encode``; a row with a logit that is not finite, or too large, is NaN."""

    def forward(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits float32 [n, C] to the bytes of each field, uint8 [n, nbytes]."""
        ordinary = logits.amax(dim=1, keepdim=True).abs() < ORDINARY
        masked = logits.isneginf() | ((logits <= MASKED_BELOW) & ordinary)
        settled = torch.where(masked, logits.clamp_min(LOWEST), logits)
        bad = ~(settled.abs() <= self.most).all(dim=1, keepdim=True)
        return {"logit": bytes_of(settled.masked_fill(bad, torch.nan).to(self.kind))}


class AllLogitsDecoder(AllLogitsTwin):
    """As ``AllLogits.decode``."""

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """Columns [n, C] to logits float32 [n, C]."""
        logits: Tensor = fields["logit"].view(self.kind).float()
        return logits
