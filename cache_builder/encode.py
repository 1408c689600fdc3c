"""The record codec in torch: logits on the device to packed record bytes on the device.

Equal to ``cache_builder.format.codec`` (a test compares them); only record bytes travel back to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cache_builder.format.codec import VALUE_LEVELS
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import CodecSection, TailBasis


class RecordEncoder(nn.Module):
    """Logits [n, C] to packed records uint8 [n, record_bytes].

    A row with a non-finite logit gets lse = NaN: the caller looks there, so that nothing is waited for here.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, codec: CodecSection, basis: TailBasis) -> None:
        super().__init__()
        self.codec = codec
        self.layout = RecordLayout(codec)
        self.register_buffer("mean", torch.from_numpy(basis.mean))
        self.register_buffer("basis", torch.from_numpy(basis.basis))

    @torch.inference_mode()
    def forward(self, logits: Tensor) -> Tensor:
        """Encode; see the class."""
        logits = logits.float()
        index, values = _top(logits, self.codec.top_k)
        span = _ceil16(values[:, 0] - values[:, -1])
        scale = torch.where(span > 0, VALUE_LEVELS / span.float().clamp_min(1e-30), 0.0)
        steps = ((values[:, :1] - values) * scale[:, None]).round().clamp(0, VALUE_LEVELS)
        finite = logits.isfinite().all(dim=1)
        lse = torch.where(finite, logits.logsumexp(dim=1), torch.nan)
        columns = {
            "topk_max": _bytes(values[:, :1].contiguous()),
            "lse": _bytes(lse[:, None]),
            "topk_span": _bytes(span[:, None]),
            "topk_index": _low_bytes(index, self.codec.index_bits // 8),
            "topk_value": steps.to(torch.uint8),
        }
        if self.codec.tail_rank:
            columns |= self._tail(logits)
        return torch.cat([columns[field.name] for field in self.layout.fields], dim=1)

    def _tail(self, logits: Tensor) -> dict[str, Tensor]:
        # float32 even under autocast: the coefficients are what the tail is rebuilt from.
        with torch.autocast(logits.device.type, enabled=False):
            coef = ((logits - self.mean) @ self.basis.T / self.codec.tail_step).round()
        wide, narrow = coef[:, : self.codec.tail_wide], coef[:, self.codec.tail_wide :]
        return {
            "tail_coef_wide": _bytes(wide.clamp(-32767, 32767).to(torch.int16)),
            "tail_coef": _bytes(narrow.clamp(-127, 127).to(torch.int8)),
        }


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
