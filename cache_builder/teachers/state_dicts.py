"""The state dict inside what a training script saved, with names that fit the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from cache_builder.format.errors import DataError

StateDict = dict[str, Tensor]

# Moving averages come first, as timm's loader takes them: theirs is the accuracy that was reported.
_AVERAGED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "params_ema",
)  # fmt: skip
_RAW = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "student")
_MOST_NESTED = 4
# What data parallelism and torch.compile put before names, anywhere in them.
_INSIDE = ("_orig_mod.", "module.")
_SHOWN = 3


def inner_state(loaded: object, key: str | None, where: str) -> tuple[StateDict, str]:
    """The state dict inside the wrappers around it, and what to call it.

    ``key``: the entry to take, None = the moving average where there is one, else the usual names. Raises
    :class:`DataError` naming what the file holds.
    """
    if key is not None:
        if not isinstance(loaded, dict) or key not in loaded:
            held = (
                ", ".join(map(str, list(loaded)[:8])) if isinstance(loaded, dict) else type(loaded).__name__
            )
            raise DataError(f"weights {where} have no entry {key!r}; there is {held}")
        return _plain(loaded[key], where), f"{where}#{key}"
    raw = _named(loaded, _RAW)
    averaged = _named(loaded, _AVERAGED)
    if averaged is not None and isinstance(loaded, dict):
        beside = f"; {raw!r} beside them holds the raw ones, taken by {where}#{raw}" if raw else ""
        return _plain(loaded[averaged], where), f"{where}#{averaged} (averaged weights, EMA{beside})"
    return _plain(loaded, where), where


def _plain(loaded: object, where: str) -> StateDict:
    for _ in range(_MOST_NESTED):
        name = _named(loaded, _AVERAGED) or _named(loaded, _RAW)
        if name is None:
            break
        loaded = loaded[name]  # type: ignore[index]  # it has that name
    tensors = {str(name): value for name, value in _items(loaded) if isinstance(value, Tensor)}
    others = [str(name) for name, value in _items(loaded) if not isinstance(value, Tensor | int | None)]
    if not tensors or others:
        if isinstance(loaded, nn.Module):
            raise DataError(f"weights {where} are a whole model: save model.state_dict() alone")
        held = ", ".join((others or ["nothing"])[:6]) if isinstance(loaded, dict) else type(loaded).__name__
        raise DataError(f"weights {where} hold no state dict; there is {held}")
    tensors.pop("n_averaged", None)  # torch's AveragedModel counts in it
    return tensors


def _items(loaded: object) -> Iterator[tuple[Any, Any]]:
    return iter(loaded.items()) if isinstance(loaded, dict) else iter(())


def _named(loaded: object, names: tuple[str, ...]) -> str | None:
    """The first of these entries that is a dict of its own; tensors of those names are a model's parts."""
    if not isinstance(loaded, dict):
        return None
    return next((name for name in names if isinstance(loaded.get(name), dict) and loaded[name]), None)


def fitted_names(state: StateDict, wanted: Mapping[str, object], where: str) -> StateDict:
    """The entries under the names that the model has: a common prefix is taken off, or put before.

    ``wanted``: the model's names. The spelling with most names in common is taken; of others nothing is
    dropped but what stands under another prefix. Raises :class:`DataError` where two prefixes fit alike.
    """
    spellings = list(_spellings(state, wanted))
    scores = [sum(name in wanted for name in spelling) for _, spelling in spellings]
    best = max(scores)
    if scores[0] == best:
        return spellings[0][1]
    fitting = [one for one, score in zip(spellings, scores, strict=True) if score == best]
    if len(fitting) > 1 and any(not _same(fitting[0][1], other, wanted) for _, other in fitting[1:]):
        prefixes = " and ".join(repr(prefix) for prefix, _ in fitting)
        raise DataError(f"weights {where}: the names under {prefixes} fit alike; save the one that is meant")
    return fitting[0][1]


def _spellings(state: StateDict, wanted: Mapping[str, object]) -> Iterator[tuple[str, StateDict]]:
    yield "", state
    bare = {_without_inside(name): value for name, value in state.items()}
    yield "", bare
    for prefix in sorted(_leads(bare), key=_by_length):
        yield prefix, {name[len(prefix) :]: bare[name] for name in bare if name.startswith(prefix)}
    for prefix in sorted(_leads(wanted), key=_by_length):
        yield prefix, {prefix + name: value for name, value in bare.items()}


def _by_length(prefix: str) -> tuple[int, str]:
    return len(prefix), prefix


def _without_inside(name: str) -> str:
    for part in _INSIDE:
        name = ("." + name).replace("." + part, ".")[1:]
    return name


def _leads(names: Mapping[str, object]) -> set[str]:
    """``model.``, ``model.net.``: what names begin with, two parts at most."""
    parts = [name.split(".") for name in names]
    return {".".join(part[:depth]) + "." for part in parts for depth in (1, 2) if len(part) > depth}


def _same(one: StateDict, other: StateDict, wanted: Mapping[str, object]) -> bool:
    """Whether both say the same of the model."""
    names = [name for name in wanted if name in one or name in other]
    return all(name in one and name in other and one[name] is other[name] for name in names)


def mismatch(state: StateDict, wanted: Mapping[str, tuple[int, ...]]) -> str:
    """How names and shapes differ, in words; empty where they do not."""
    found = {name: tuple(value.shape) for name, value in state.items()}
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name])}, the model has {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    parts = []
    if missing:
        parts.append(f"missing {_few(missing)}")
    if unexpected:
        parts.append(f"unexpected {_few(unexpected)}")
    return "; ".join([*parts, *shapes[:_SHOWN]])


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
