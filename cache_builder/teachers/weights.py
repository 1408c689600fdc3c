"""Weights of a teacher: a file's state dict into the model it was saved from; the digest that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.teachers.described_files import described_beside
from cache_builder.teachers.state_dicts import StateDict, fitted_names, inner_state, mismatch
from cache_builder.teachers.weight_files import LOADING_ERRORS, read_file
from cache_builder.teachers.weight_places import split_entry
from cache_builder.tensors.payload import tensors_digest

__all__ = [
    "LOADING_ERRORS",
    "StateDict",
    "Weights",
    "classes_in",
    "load_into",
    "read_weights",
    "weights_digest",
]

_BY_ORDER = "by-order"
# Heads that help to train and never answer: torchvision's published weights come with and without them.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# What models work out for themselves, or what only counts.
_DERIVED = (
    "num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask", "position_ids",
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """What a weights file gave."""

    state: StateDict
    metadata: dict[str, Any]
    """kdcache's own, ``{}`` where the file has none."""
    origin: str
    """What to call them: the file's name, with the entry that was taken."""
    beside: dict[str, Any]
    """What files beside them say of the pictures, with ``origin``; ``{}`` where there are none."""
    by_order: bool = False
    """Whether names do not count, only the order of the tensors: the user said so."""

    def fitted(self, model: nn.Module) -> Weights:
        """With names that are the model's, where a prefix is all that differs."""
        wanted = model.state_dict()
        if self.by_order:
            return replace(self, state=_in_order(self.state, wanted, self.origin))
        return replace(self, state=fitted_names(self.state, wanted, self.origin))


def read_weights(text: str | Path) -> Weights:
    """Weights of ``FILE``, ``FOLDER`` or ``FILE#ENTRY``; no code in it is run.

    ``ENTRY``: which of several state dicts; ``by-order``: take the tensors by their order, whatever they are
    called. Raises :class:`DataError` for what cannot be read, with what to do.
    """
    path, entry = split_entry(text)
    loaded, metadata = read_file(path)
    by_order = entry == _BY_ORDER
    state, origin = inner_state(loaded, None if by_order else entry, path.name)
    if by_order:
        origin += " (tensors by their order)"
    return Weights(state, metadata, origin, described_beside(path), by_order)


def _in_order(state: StateDict, wanted: dict[str, Any], origin: str) -> StateDict:
    if _axes(state) != _axes(wanted):
        raise ConfigError(
            f"weights {origin}: the file has {len(state)} tensors and the model {len(wanted)}, or they are "
            "of other kinds on the way, so their order says nothing"
        )
    return dict(zip(wanted, state.values(), strict=True))


def _axes(state: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    """What tensors that belong to each other have in common, also where the number of classes is another."""
    return [tuple(value.shape[1:]) for value in state.values()]


def load_into(model: nn.Module, weights: Weights) -> None:
    """Load all that answers depend on; :class:`ConfigError` says by names and shapes what does not fit.

    Counters and tables that a model works out itself may be missing or left over; so may auxiliary heads.
    """
    state = dict(weights.fitted(model).state)
    _settle_auxiliary_heads(model, state)
    own = model.state_dict()
    for name in own:
        if name.endswith(_DERIVED) and name not in state:
            state[name] = own[name]
    for name in [name for name in state if name not in own and name.endswith(_DERIVED)]:
        del state[name]
    problem = mismatch(state, {name: tuple(value.shape) for name, value in own.items()})
    if problem:
        hint = ""
        if not weights.by_order and _axes(weights.state) == _axes(own):
            hint = "; the tensors are alike in the same order: if it is the same model, say FILE#by-order"
        raise ConfigError(f"weights {weights.origin} do not fit the teacher: {problem}{hint}")
    model.load_state_dict(state)


def _settle_auxiliary_heads(model: nn.Module, state: StateDict) -> None:
    """Leave out heads that only the model has, and weights of heads that only the file has."""
    for prefix in _AUXILIARY:
        head = prefix.removesuffix(".")
        has = isinstance(getattr(model, head, None), nn.Module)
        stored = any(name.startswith(prefix) for name in state)
        if has and not stored:
            setattr(model, head, None)
            cast("Any", model).aux_logits = False
        if stored and not has:
            for name in [name for name in state if name.startswith(prefix)]:
                del state[name]


def classes_in(state: StateDict, model: nn.Module, classes: int) -> int | None:
    """Number of classes of a state dict, from the entry where ``model`` has ``classes`` outputs.

    Heads are the last parameters of a model, so the last such entry decides.
    """
    for name, value in reversed(list(model.state_dict().items())):
        if value.ndim and value.shape[0] == classes and name in state and state[name].ndim:
            return int(state[name].shape[0])
    return None


def weights_digest(model: nn.Module) -> str:
    """``tensors_digest`` of the state dict: names a teacher."""
    return tensors_digest(model.state_dict())
