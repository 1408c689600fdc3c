"""Losses around another loss, which they are told as ``{"name": ..., "configuration": {...}}``."""

from __future__ import annotations

from typing import Any

from torch import nn

from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from trainer.losses.contract import ClassCounts, Loss, Scalar, StatefulLoss
from trainer.losses.lookup import make_loss

InnerLoss = NamedConfiguration | dict[str, Any] | str


class WrapperLoss(StatefulLoss):
    """A loss with a field ``loss``: it changes logits (or the temperature), then evaluates the inner loss."""

    inner: Loss

    def __post_init__(self) -> None:
        """Build the inner loss; what it needs, this one needs as well."""
        super().__post_init__()
        told: InnerLoss = getattr(self, "loss")  # noqa: B009 - a field of every subclass
        if isinstance(told, str):
            told = NamedConfiguration(name=told)
        elif isinstance(told, dict):
            told = NamedConfiguration.model_validate(told)
        self._set("loss", told)
        self._adopt(make_loss(told.name, told.configuration))

    @property
    def highest_temperature(self) -> float:
        """Its inner loss's."""
        return self.inner.highest_temperature

    def prepared(self, counts: ClassCounts) -> WrapperLoss:
        """Its inner loss, prepared."""
        self._adopt(self.inner.prepared(counts))
        return self

    def begin_epoch(self, epoch: int) -> None:
        """Told to the inner loss."""
        if isinstance(self.inner, StatefulLoss):
            self.inner.begin_epoch(epoch)

    def advance(self, value: Scalar, progress: float) -> None:
        """Told to the inner loss."""
        if isinstance(self.inner, StatefulLoss):
            self.inner.advance(value, progress)

    def _adopt(self, inner: Loss) -> None:
        if inner.takes_ensemble or inner.needs_held_out:
            raise ConfigError(f"loss {self.name!r} cannot wrap {inner.name!r}: use that one alone")
        if isinstance(inner, nn.Module):
            self._modules["inner"] = inner
        self._set("inner", inner)
        for need in ("needs_teacher", "needs_labels", "couples_samples"):
            self._set(need, getattr(self, need) or getattr(inner, need))
        self._set("views", inner.views)
        if self.weighs == "likely":
            self._set("weighs", inner.weighs)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen for everybody else
