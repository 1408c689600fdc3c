"""Codecs that leave masked classes out: what their settings say, and what becomes of masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializerFunctionWrapHandler, model_serializer

from cache_builder.format.codecs.contract import CodecSettings, Ranked
from cache_builder.format.codecs.masking import MaskSection, is_masked, unmasked


class MaskingSettings(CodecSettings):
    """Settings with ``masks``. Each codec declares it itself, in the order of its JSON."""

    if TYPE_CHECKING:
        masks: MaskSection | None

    @model_serializer(mode="wrap")
    def _without_absent_masks(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = serialize(self)
        return {key: value for key, value in body.items() if key != "masks" or value is not None}


M = TypeVar("M", bound=MaskingSettings)


class Masking(Ranked[M]):
    """A codec around a mean, which is the constant of a class that is masked in every record."""

    @property
    def mean(self) -> NDArray[np.float32]:
        """float32 [C]; the constant of a class that is masked in every record."""
        return self.arrays["mean"]

    def settled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, C] with masks at what they decode to, and not a number where there is no place."""
        masks = self.settings.masks
        return values if masks is None else unmasked(values, masks, self.mean)

    def without_place(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where calibration saw no mask: outputs [n] that have one."""
        if self.settings.masks is not None:
            return np.zeros(len(values), bool)
        return np.asarray(is_masked(values).any(axis=1))
