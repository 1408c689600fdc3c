"""What to say of a model that nobody knows by that name: what torchvision and timm have that is near."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from cache_builder.console.libraries import model_names
from cache_builder.console.names import unknown_name


def unknown_model(kind: str, name: str, own: Iterable[str], timm_prefix: str, other_ways: str) -> str:
    """A sentence with the nearest names of torchvision, of ``own`` ones and of timm.

    ``timm_prefix``: what stands before a name of timm where one is written; ``other_ways``: how a model
    without a name can be given, for the end of the sentence.
    """
    timm = model_names("timm")
    same = [name] if name.partition(".")[0] in timm else []
    same += sorted(other for other in timm if other.endswith(f"_{name}"))
    if same:
        offer = " or ".join(f"{timm_prefix}{other}" for other in same[:4])
        return f"unknown {kind} {name!r}: torchvision has none of that name, timm has: write {offer}"
    torchvision = model_names("torchvision")
    near = difflib.get_close_matches(name, timm, n=3, cutoff=0.75)
    of_timm = [timm_prefix + other for other in near if other not in torchvision]
    return unknown_name(kind, name, [*own, *torchvision, *of_timm]) + other_ways
