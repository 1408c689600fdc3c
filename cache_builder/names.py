"""What to say when a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What `--data` takes, for the help of both programs: they must not load the data sets to show it.
DATA_KINDS = (
    "imagefolder:PATH, webdataset:PATTERN, hf:PATH[:SPLIT], csv:PATH, parquet:PATH, "
    "torchvision:NAME:PATH, cifar10:PATH[:test], cifar100:PATH[:test] or digits[:train|:test]"
)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, or with all of them where nothing is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
    offer = (
        f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"known: {', '.join(names[:20])}"
    )
    return f"unknown {kind} {name!r}: {offer}"
