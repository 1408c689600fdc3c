"""The record codec in torch: logits on the device to packed record bytes on the device.

Equal to ``cache_builder.format.codec`` (a test compares them); only record bytes travel back to the host.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cache_builder.format.class_sketch import NIBBLE, ORDER_GAP, value_limit
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import Codec, CodecSection, SketchSection, TailBasis
from cache_builder.format.masking import MASKED_BELOW, ORDINARY
from cache_builder.format.topk_tail import VALUE_LEVELS
from cache_builder.tensors.float32 import full_float32

_INTEGERS = {8: torch.int8, 16: torch.int16}


class RecordEncoder(nn.Module):
    """Logits [n, C] to packed records uint8 [n, record_bytes].

    A row with a non-finite logit gets lse = NaN: the caller looks there, so that nothing is waited for here.
    """

    mean: Tensor
    basis: Tensor
    centres: Tensor
    usual_place: Tensor | None

    def __init__(self, codec: Codec, basis: TailBasis) -> None:
        super().__init__()
        self.codec = codec
        self.layout = RecordLayout(codec)
        self.register_buffer("mean", torch.from_numpy(basis.mean))
        self.register_buffer("basis", torch.from_numpy(basis.basis))
        sketched = isinstance(codec, SketchSection)
        self.register_buffer("centres", torch.from_numpy(basis.centres) if sketched else None)
        ranked = isinstance(codec, SketchSection) and codec.index_coding == "rank"
        places = torch.from_numpy(basis.places(codec.tail_step).astype(np.int32)) if ranked else None
        self.register_buffer("usual_place", places)

    @torch.inference_mode()
    def forward(self, logits: Tensor) -> Tensor:
        """Encode; see the class."""
        logits = self._unmasked(logits.float())
        index, values = _top(logits, self.codec.top_k)
        finite = logits.isfinite().all(dim=1)
        if isinstance(self.codec, CodecSection):
            lse = torch.where(finite, logits.logsumexp(dim=1), torch.nan)
            columns = self._topk_tail(self.codec, logits, index, values, lse)
        else:
            above = torch.where(finite, _log_sum_exp_above(logits, index, values), torch.nan)
            columns = self._class_sketch(self.codec, logits, index, values, above)
        return torch.cat([columns[field.name] for field in self.layout.fields], dim=1)

    def _unmasked(self, logits: Tensor) -> Tensor:
        """As ``masking.unmasked``."""
        if self.codec.masks is None:
            return logits
        ordinary = logits.amax(dim=1, keepdim=True).abs() < ORDINARY
        masked = logits.isneginf() | ((logits <= MASKED_BELOW) & ordinary)
        raised = logits.masked_fill(masked, self.codec.masks.floor)
        constant = torch.where(masked, self.mean, torch.nan)
        return torch.where(self.mean <= MASKED_BELOW, constant, raised)

    def _topk_tail(
        self, codec: CodecSection, logits: Tensor, index: Tensor, values: Tensor, lse: Tensor
    ) -> dict[str, Tensor]:
        span = _ceil16(values[:, 0] - values[:, -1])
        scale = torch.where(span > 0, VALUE_LEVELS / span.float().clamp_min(1e-30), 0.0)
        steps = ((values[:, :1] - values) * scale[:, None]).round().clamp(0, VALUE_LEVELS)
        columns = {
            "topk_max": _bytes(values[:, :1]),
            "lse": _bytes(lse[:, None]),
            "topk_span": _bytes(span[:, None]),
            "topk_index": _low_bytes(index, codec.index_bits // 8),
            "topk_value": steps.to(torch.uint8),
        }
        if codec.tail_rank:
            coef = self._coefficients(logits)
            wide, narrow = coef[:, : codec.tail_wide], coef[:, codec.tail_wide :]
            columns["tail_coef_wide"] = _bytes(wide.clamp(-32767, 32767).to(torch.int16))
            columns["tail_coef"] = _bytes(narrow.clamp(-127, 127).to(torch.int8))
        return columns

    def _class_sketch(
        self, codec: SketchSection, logits: Tensor, index: Tensor, values: Tensor, above: Tensor
    ) -> dict[str, Tensor]:
        usual = self.centres[index[:, 0]].float()
        coef = (self._coefficients(logits) - usual).nan_to_num(0.0)
        bytes_end = codec.tail_wide + codec.tail_bytes
        wide = coef[:, : codec.tail_wide].clamp(-32767, 32767)
        narrow = coef[:, codec.tail_wide : bytes_end].clamp(-127, 127)
        small = coef[:, bytes_end:].clamp(-NIBBLE, NIBBLE)
        kept = torch.cat([wide, narrow, small], dim=1) + usual
        sketched = self._sketch(kept).gather(1, index)
        return {
            "lse_above": _bytes(above.to(torch.float16)[:, None]),
            "tail_coef_wide": _bytes(wide.to(torch.int16)),
            "topk_index": _low_bytes(self._coded(index), codec.index_bits // 8),
            "topk_residual": _bytes(_residuals(values, sketched, codec).to(_INTEGERS[codec.value_bits])),
            "tail_coef": _bytes(narrow.to(torch.int8)),
            "tail_coef_packed": _halves(small),
        }

    def _coded(self, index: Tensor) -> Tensor:
        """As ``class_sketch.coded_index``."""
        if self.usual_place is None:
            return index
        others = self.usual_place[index[:, :1], index[:, 1:]]
        return torch.cat([index[:, :1], others.long()], dim=1)

    def _coefficients(self, logits: Tensor) -> Tensor:
        """Rounded coefficients of the whole logits [n, r], as floats."""
        # The coefficients are what the tail is rebuilt from.
        with full_float32(logits.device):
            return ((logits - self.mean) @ self.basis.T / self.codec.tail_step).round()

    def _sketch(self, coef: Tensor) -> Tensor:
        with full_float32(coef.device):
            return torch.addmm(self.mean, coef * self.codec.tail_step, self.basis)


def _residuals(values: Tensor, sketched: Tensor, codec: SketchSection) -> Tensor:
    """As ``class_sketch.residuals``: in value steps, and such that what they decode to falls."""
    step, limit = codec.value_step, value_limit(codec)
    codes = ((values - sketched) / step).nan_to_num(0.0).round().clamp(-limit, limit)
    for k in range(1, codec.top_k):
        before = sketched[:, k - 1] + step * codes[:, k - 1]
        most = ((before - step / ORDER_GAP - sketched[:, k]) / step).floor()
        codes[:, k] = torch.minimum(codes[:, k], most).clamp(-limit, limit)
    return codes


def _log_sum_exp_above(logits: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """As ``fields.log_sum_exp_above``."""
    others = (logits - values[:, :1]).exp().scatter(1, index[:, :1], 0.0)
    return others.sum(dim=1).log1p()


def _halves(coef: Tensor) -> Tensor:
    """As ``class_sketch.pack_halves``."""
    padded = nn.functional.pad(coef, (0, coef.shape[1] % 2)) + (NIBBLE + 1)
    return (padded[:, ::2] + 16 * padded[:, 1::2]).to(torch.uint8)


def _top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Class ids and logits of the K largest, largest first, equal logits by class id.

    ``topk`` on logits takes any of several equal ones, and bf16 logits are often equal, so it runs on
    integers that are all different: the float's bits in an order that integers have, then the class id.
    """
    bits = (logits + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the 0.0 it is equal to
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    keys = (ordered << 32) - torch.arange(logits.shape[1], device=logits.device)
    index = keys.topk(k, dim=1).indices
    return index, logits.gather(1, index)


def _ceil16(span: Tensor) -> Tensor:
    """The smallest float16 not below ``span`` >= 0: adding one to the bits gives the next float."""
    rounded = span.to(torch.float16)
    bits = rounded.view(torch.int16) + (rounded.float() < span).to(torch.int16)
    return bits.view(torch.float16)


def _bytes(column: Tensor) -> Tensor:
    return column.contiguous().view(torch.uint8)


def _low_bytes(index: Tensor, width: int) -> Tensor:
    """The ``width`` low bytes of each int64 id (little-endian hosts, like every device torch runs on)."""
    spread = index.contiguous().view(torch.uint8).view(*index.shape, 8)
    return spread[..., :width].reshape(index.shape[0], -1)
