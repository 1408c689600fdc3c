"""Logits on the device to packed record bytes on the device, by whichever codec.

Equal to the codec in NumPy (a test compares them); only record bytes travel back to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cache_builder.format import Codec, ConfigError
from cache_builder.tensors.all_logits import AllLogitsEncoder
from cache_builder.tensors.class_sketch import ClassSketchEncoder
from cache_builder.tensors.joint_sketch import JointSketchEncoder
from cache_builder.tensors.topk_tail import TopkTailEncoder

ENCODERS: dict[str, Callable[[Any], nn.Module]] = {
    "topk-tail": TopkTailEncoder,
    "class-sketch": ClassSketchEncoder,
    "joint-sketch": JointSketchEncoder,
    "all-logits": AllLogitsEncoder,
}
"""By codec name: from the codec, a module of logits float32 [n, C] to the bytes of each field by its name."""


class RecordEncoder(nn.Module):
    """Logits [n, C] to packed records uint8 [n, record_bytes].

    A row with a logit that is not finite gives an unusable record: the caller looks there, so that nothing is
    waited for here.
    """

    def __init__(self, codec: Codec[Any]) -> None:
        """Raises :class:`ConfigError` for a codec that torch has no encoder of."""
        super().__init__()
        self.layout = codec.layout
        name = codec.settings.name
        if name not in ENCODERS:
            raise ConfigError(f"codec {name} has no encoder in torch: it needs one in ENCODERS")
        self.twin = ENCODERS[name](codec)

    @torch.inference_mode()
    def forward(self, logits: Tensor, views: int = 1, shared: Mapping[str, Tensor] | None = None) -> Tensor:
        """Encode; see the class.

        ``views``: so many consecutive logits are of one sample, in the views of one tile. ``shared``: the
        bytes of the fields that views share, by name, uint8 [n, nbytes], where they are stored already.
        """
        if any(field.shared for field in self.layout.fields):
            columns = self.twin(logits.float(), views, shared)
        else:
            columns = self.twin(logits.float())
        return torch.cat([columns[field.name] for field in self.layout.fields], dim=1)
