"""The teacher's forward pass: device, precision, normalisation, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from cache_builder.console.memory import is_exhausted
from cache_builder.console.names import Precision
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.teachers.ensemble import Ensemble
from cache_builder.teachers.outputs import LOGITS, logits_of
from cache_builder.tensors.normalise import normalise

# What a model raises for an input it was not made for.
_MODEL_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, AttributeError, KeyError)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class CompilerError(KDCacheError):
    """The teacher could not be compiled: install a compiler, or do without."""


class TeacherForward:
    """A teacher as a function of rendered pixels to named outputs, on the device."""

    def __init__(
        self,
        model: nn.Module,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
        precision: Precision,
        outputs: Mapping[str, int] | None = None,
    ) -> None:
        """``outputs``: the width of each, as the teacher declares it; None where nobody knows."""
        self.outputs = dict(outputs or {})
        self.device = device
        self._precision = precision
        self._mean, self._std = mean, std
        self._model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled: Callable[[Tensor], object] | None = None
        self._batch_size = 0

    def in_precision(self, precision: Precision) -> TeacherForward:
        """The same model in other arithmetic, not compiled."""
        return TeacherForward(self._model, self._mean, self._std, self.device, precision, self.outputs)

    def members(self) -> list[tuple[str, TeacherForward]]:
        """Name and forward pass of each member of an ensemble; none for a single teacher."""
        if not isinstance(self._model, Ensemble):
            return []
        return [
            (name, TeacherForward(member, self._mean, self._std, self.device, self._precision, self.outputs))
            for name, member in self._model.named()
        ]

    def compile(self, batch_size: int, input_size: int) -> None:
        """Have ``torch.compile`` translate the teacher for batches of this size; takes a minute or so.

        Smaller batches are then filled up with black pictures, so that none needs a translation of its own.
        Raises :class:`CompilerError` where that cannot be done; the teacher still runs without.
        """
        self._compiled = cast("Callable[[Tensor], object]", torch.compile(self._model))
        self._batch_size = batch_size
        try:
            self(torch.zeros(batch_size, 3, input_size, input_size, dtype=torch.uint8))
        except Exception as error:
            self._compiled = None
            if is_exhausted(error):
                raise
            # dynamo wraps what its backend raised.
            reason = getattr(error, "inner_exception", error)
            raise CompilerError(f"{type(reason).__name__}: {_first_line(reason)}") from error

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 [B, 3, S, S] to outputs [B, width] by name, in the precision of the last layer.

        ``logits`` are raw. Raises :class:`ConfigError` for an output of another width than the declared one.
        """
        if self._compiled is None:
            return {LOGITS: self._logits(images, self._model)}
        missing = max(0, self._batch_size - len(images))
        filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        return {LOGITS: self._logits(filled, self._compiled)[: len(images)]}

    def logits(self, images: Tensor) -> Tensor:
        """The output ``logits`` alone [B, C]."""
        return self(images)[LOGITS]

    def _logits(self, images: Tensor, model: Callable[[Tensor], object]) -> Tensor:
        pixels = normalise(images.to(self.device, non_blocking=True), self._mean, self._std)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        dtype = _AUTOCAST.get(self._precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            logits = logits_of(model(pixels))
        declared = self.outputs.get(LOGITS, logits.shape[1])
        if logits.shape[1] != declared:
            raise ConfigError(
                f"the teacher gives {logits.shape[1]} logits for a picture, and declares {declared}"
            )
        return logits

    def classes(self, input_size: int) -> int:
        """C, as the teacher declares it.

        The last resort, for a factory's model that nobody described, is one forward pass over a black
        picture; raises :class:`ConfigError` for a size that the model refuses.
        """
        if LOGITS not in self.outputs:
            black = torch.zeros(1, 3, input_size, input_size, dtype=torch.uint8)
            with size_failures(input_size):
                self.outputs[LOGITS] = int(self.logits(black).shape[1])
        return self.outputs[LOGITS]


@contextmanager
def size_failures(input_size: int) -> Iterator[None]:
    """Turn what a model raises at the first picture into a :class:`ConfigError` about its size."""
    try:
        yield
    except _MODEL_ERRORS as error:
        if is_exhausted(error):
            raise
        raise ConfigError(
            f"the teacher cannot take an image of {input_size} x {input_size} pixels: {_first_line(error)}; "
            "is --input-size the one it was made for?"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
