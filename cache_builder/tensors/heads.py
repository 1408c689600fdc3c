"""A network with a second classifier on its features, and how two answers become one.

Shared by kdtrain, which trains such networks, and kdcache build, for which one may be a teacher.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Frozen


class HeadSpec(Frozen):
    """What an auxiliary head is, and what the network answers in evaluation mode."""

    kind: Literal["linear", "mlp"]
    """linear: one layer. mlp: Linear, Dropout, BatchNorm, ReLU, Linear (Dual-Head KD's nonlinear head)."""
    hidden: int = Field(default=200, ge=1)
    """Width of the mlp."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of the mlp, before its normalisation."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """Share of the auxiliary head in the answer, as probability; 0 = the main head alone answers."""
    temperature: float = Field(default=1.0, gt=0)
    """T by which the auxiliary logits are divided before they are mixed in."""

    def layers(self, features: int, classes: int) -> nn.Module:
        """A fresh head from features [B, F] to logits [B, C]."""
        if self.kind == "linear":
            return nn.Linear(features, classes)
        return nn.Sequential(
            nn.Linear(features, self.hidden),
            nn.Dropout(self.dropout),
            nn.BatchNorm1d(self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )

    def answer(self, main: Tensor, aux: Tensor) -> Tensor:
        """Both heads' logits [..., C] to the answer's: ``log((1 - m) softmax(main) + m softmax(aux / T))``.

        With m = 0 the main logits themselves. Dual-Head Optimization, arXiv 2505.07675.
        """
        if not self.mix:
            return main
        log_shares = torch.tensor([1 - self.mix, self.mix], dtype=torch.float32, device=main.device).log()
        main, aux = main.float().log_softmax(-1), (aux.float() / self.temperature).log_softmax(-1)
        return torch.logaddexp(main + log_shares[0], aux + log_shares[1])


class DualHead(nn.Module):
    """A network and an auxiliary head on what its classifier is given.

    In training mode it gives (main, aux) logits, in evaluation mode one answer. The classifier is the
    network's last Linear layer with an output per class; :class:`ConfigError` where there is none. In a state
    dict the network's weights keep their own names, so that they fit the bare network; those of the head
    begin with ``aux_head.``.
    """

    def __init__(
        self, network: nn.Module, spec: HeadSpec, classes: int, aux_classes: int | None = None
    ) -> None:
        """``classes``: of the network; ``aux_classes``: of the head, None = as many."""
        super().__init__()
        if spec.mix and aux_classes not in (None, classes):
            raise ConfigError(
                f"the heads have {classes} and {aux_classes} classes: their answers cannot be mixed (mix=0)"
            )
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        classifiers = [module for module in linear if module.out_features == classes]
        if not classifiers:
            raise ConfigError(
                f"an auxiliary head shares the features of a Linear classifier, and {type(network).__name__} "
                f"has no Linear layer with {classes} outputs: use another student, or no auxiliary head"
            )
        if any(name.startswith(_HEAD) for name in network.state_dict()):
            raise ConfigError(f"{type(network).__name__} has an aux_head of its own: rename that")
        self.spec = spec
        self.network = network
        self.aux_head = spec.layers(classifiers[-1].in_features, aux_classes or classes)
        self._features: Tensor | None = None
        classifiers[-1].register_forward_pre_hook(self._keep)
        self._rename_weights()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [B, C] from images, of both heads in training mode."""
        main: Tensor = self.network(images)
        features, self._features = self._features, None
        if features is None or features.ndim != 2 or len(features) != len(main):
            shape = "nothing" if features is None else list(features.shape)
            raise ConfigError(
                f"no auxiliary head fits {type(self.network).__name__}: its last Linear layer with an output "
                f"per class was given {shape}, expected features [batch, features] of the same images"
            )
        if self.training:
            return main, self.aux_head(features)
        return self.spec.answer(main, self.aux_head(features)) if self.spec.mix else main

    def _rename_weights(self) -> None:
        self.register_state_dict_post_hook(_with_own_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_own_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_report_own_names)  # type: ignore[no-untyped-call]

    def _keep(self, classifier: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]


_NETWORK, _HEAD = "network.", "aux_head."


def _with_own_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    inner = [key for key in state if key.startswith(prefix + _NETWORK)]
    # All are taken out before any is put back: a network may have a part that is named network.
    renamed = {prefix + key.removeprefix(prefix + _NETWORK): state.pop(key) for key in inner}
    state.update(renamed)


def _from_own_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = [key for key in state if key.startswith(prefix) and not key.startswith(prefix + _HEAD)]
    renamed = {prefix + _NETWORK + key.removeprefix(prefix): state.pop(key) for key in own}
    state.update(renamed)


def _report_own_names(module: nn.Module, incompatible: Any) -> None:
    for keys in (incompatible.missing_keys, incompatible.unexpected_keys):
        keys[:] = [key.removeprefix(_NETWORK) for key in keys]
