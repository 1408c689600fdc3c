"""Codec ``joint-sketch`` in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache_builder.format import FormatError
from cache_builder.format.codecs.class_sketch import ORDER_GAP
from cache_builder.format.codecs.digits import BYTE, Digits
from cache_builder.format.codecs.joint_sketch import SAMPLE, VALUE_LIMIT, VIEW, JointSketch
from cache_builder.tensors.float32 import full_float32
from cache_builder.tensors.sketched import largest, settled


class DigitsTwin(nn.Module):
    """As ``Digits``: small integers [n, r] to bytes [n, bytes], and back."""

    place: Tensor
    weight: Tensor
    values: Tensor
    limit: Tensor
    wide: Tensor

    def __init__(self, digits: Digits) -> None:
        super().__init__()
        self.bytes = digits.bytes
        values = np.array(digits.values, np.int64)
        for name, array in (
            ("place", digits.place),
            ("weight", digits.weight),
            ("values", values),
            ("limit", digits.limit),
            ("wide", digits.wide.astype(np.int64)),
        ):
            self.register_buffer(name, torch.from_numpy(np.array(array)), persistent=False)

    def pack(self, integers: Tensor) -> Tensor:
        """Integers int64 [n, r], cut off at their limits, to bytes uint8 [n, bytes]."""
        digits = integers.clamp(-self.limit, self.limit) + self.limit
        packed = integers.new_zeros(len(integers), self.bytes)
        packed.index_add_(1, self.place, digits * self.weight)
        if self.wide.numel():
            packed[:, self.place[self.wide] + 1] = digits[:, self.wide] >> 8
        return (packed & (BYTE - 1)).to(torch.uint8)

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse: bytes uint8 [n, bytes] to integers int64 [n, r]."""
        whole = packed.index_select(1, self.place).long()
        if self.wide.numel():
            whole[:, self.wide] += packed.index_select(1, self.place[self.wide] + 1).long() << 8
        return whole // self.weight % self.values - self.limit


class JointSketchTwin(nn.Module):
    """What encoder and decoder have in common."""

    mean: Tensor
    basis: Tensor
    integer_basis: Tensor
    offsets: Tensor
    constant: Tensor

    def __init__(self, codec: JointSketch) -> None:
        super().__init__()
        settings = codec.settings
        self.classes, self.top_k, self.rank = codec.width, settings.top_k, settings.rank
        self.sample_rank, self.view_rank = settings.sample_rank, settings.view_rank
        self.step, self.fine, self.unit = settings.step, settings.step / 2**settings.finer, settings.unit
        self.value_step, self.scale = settings.value_step, 2**settings.finer
        self.sample, self.view = DigitsTwin(codec.digits[SAMPLE]), DigitsTwin(codec.digits[VIEW])
        self._keep("mean", codec.mean)
        # Integers in float64, which is exact up to 2**53 in whatever order they are added.
        self._keep("integer_basis", codec.arrays["basis"].astype(np.float64))
        self._keep("offsets", codec.offsets)
        self._keep("constant", codec.constant)

    def _keep(self, name: str, array: NDArray[Any]) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(array)), persistent=False)

    def sketched(self, common: Tensor, own: Tensor) -> Tensor:
        """As ``JointSketch.sketched``: int64 [n, C] in units."""
        total = self.integer_basis.new_zeros(len(own), self.rank)
        total[:, : self.sample_rank] += common
        total[:, : self.view_rank] += own * self.scale
        return (total @ self.integer_basis).long() + self.offsets

    def in_logits(self, units: Tensor) -> Tensor:
        """Units as logits."""
        return units.float() * self.unit

    def order_keys(self, sketched: Tensor) -> Tensor:
        """As ``joint_sketch._order_keys``."""
        return torch.arange(self.classes, device=sketched.device) - sketched * self.classes


class JointSketchEncoder(JointSketchTwin):
    """As ``JointSketch.encode``; a row with a logit that is not finite is marked as invalid."""

    def __init__(self, codec: JointSketch) -> None:
        super().__init__(codec)
        self.masks, self.dead_zone = codec.settings.masks, codec.settings.dead_zone
        self._keep("basis", codec.basis)

    def forward(self, logits: Tensor, views: int, shared: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Logits float32 [n, C], of a sample so many consecutive ones, to the bytes of each field.

        ``shared``: the bytes of the field that the views of a sample share, where it is stored already.
        """
        logits = settled(logits, self.masks, self.mean)
        is_bad = ~logits.isfinite().all(dim=1)
        logits = logits.masked_fill(is_bad[:, None], 0.0)
        coef = self._coefficients(logits)
        if shared is None:
            packed = self.sample.pack(self._common(coef, views)).repeat_interleave(views, dim=0)
        else:
            packed = shared[SAMPLE]
        common = self.sample.unpack(packed)
        own = self._own(coef, common)
        sketched = self.sketched(common, own)
        index, top = largest(logits, self.top_k)
        places = self._places(sketched, index)
        residuals = self._residuals(top, self.in_logits(sketched.gather(1, index)))
        integers = torch.cat([is_bad[:, None].long(), own, places, residuals], dim=1)
        return {SAMPLE: packed, VIEW: self.view.pack(integers)}

    def _coefficients(self, logits: Tensor) -> Tensor:
        with full_float32(logits.device):
            centred = (logits - self.mean).masked_fill(self.constant, 0.0)
            return centred @ self.basis.T

    def _common(self, coef: Tensor, views: int) -> Tensor:
        means = coef.reshape(-1, views, coef.shape[1]).mean(dim=1)[:, : self.sample_rank]
        return self._rounded(means, self.fine)

    def _own(self, coef: Tensor, common: Tensor) -> Tensor:
        left = coef[:, : self.view_rank].clone()
        both = min(self.view_rank, self.sample_rank)
        left[:, :both] -= common[:, :both].float() * self.fine
        limits = self.view.limit[1 : 1 + self.view_rank]
        return self._rounded(left, self.step).clamp(-limits, limits)

    def _rounded(self, values: Tensor, step: float) -> Tensor:
        """As ``joint_sketch.rounded``, as int64."""
        return ((values.abs() / step + (0.5 - self.dead_zone)).floor() * values.sign()).long()

    def _places(self, sketched: Tensor, index: Tensor) -> Tensor:
        keys = self.order_keys(sketched)
        wanted = keys.gather(1, index)
        return torch.stack([(keys < key[:, None]).sum(dim=1) for key in wanted.unbind(1)], dim=1)

    def _residuals(self, top: Tensor, sketch: Tensor) -> Tensor:
        """As ``JointSketch.residuals``."""
        step = self.value_step
        codes = ((top - sketch) / step).round().clamp(-VALUE_LIMIT, VALUE_LIMIT)
        for k in range(1, self.top_k):
            before = sketch[:, k - 1] + step * codes[:, k - 1]
            most = ((before - step / ORDER_GAP - sketch[:, k]) / step).floor()
            codes[:, k] = torch.minimum(codes[:, k], most).clamp(-VALUE_LIMIT, VALUE_LIMIT)
        return codes.long()


class JointSketchDecoder(JointSketchTwin):
    """As ``JointSketch.decode``."""

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """Columns [n, count] to dense logits float32 [n, C]."""
        common, found = self.sample.unpack(fields[SAMPLE]), self.view.unpack(fields[VIEW])
        valid, own, places, residuals = torch.split(found, [1, self.view_rank, self.top_k, self.top_k], dim=1)
        sketched = self.sketched(common, own)
        index = self._at_places(sketched, places)
        dense = torch.where(self.constant, self.mean, self.in_logits(sketched))
        top = dense.gather(1, index) + self.value_step * residuals.float()
        # No class outside the top K reaches the K-th logit, whatever the sketch says.
        dense = torch.minimum(dense, top[:, -1:] - self.value_step / ORDER_GAP).scatter_(1, index, top)
        return dense.masked_fill(valid != 0, torch.nan)

    def _at_places(self, sketched: Tensor, places: Tensor) -> Tensor:
        """As ``joint_sketch._at_places``."""
        most = self.classes
        # On a CPU the number that is needed is known for nothing; elsewhere asking would wait for the device.
        if places.device.type == "cpu" and places.numel():
            most = int(places.max()) + 1
            if most > self.classes or int(places.min()) < 0:
                raise FormatError(
                    f"a record names a place beyond the {self.classes} classes: it is of another cache"
                )
        ranked = self.order_keys(sketched).topk(most, dim=1, largest=False).indices
        return ranked.gather(1, places)
