"""What the classes of ImageNet are called: WordNet ids, WordNet's words, torchvision's categories.

The libraries know them: timm (an extra) all of these for ImageNet-1k and its larger sets, torchvision its own
words for ImageNet-1k.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cache_builder.console.libraries import light_module
from cache_builder.datasets.class_names import class_key
from cache_builder.datasets.spellings import Found, Spellings

CLASSES = 1000
_SUBSETS = {
    CLASSES: "imagenet-1k",
    11221: "imagenet-21k-miil",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
    21842: "imagenet-22k-ms",
    21843: "imagenet-21k-goog",
}
# Words that ImageNet-1k itself uses for two classes, for where timm is not there to tell.
_REPEATED = {"crane": (134, 517), "maillot": (638, 639), "crane bird": (134,), "maillot, tank suit": (639,)}
# The thousand WordNet ids, sorted and joined by line ends: their order is the order of the classes.
_WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
_WNID = re.compile(r"(n\d{8})(?:[-_ ].*)?")


def loose_key(name: str) -> str:
    """A name without letter case and underscores; of ``n02085620-Chihuahua`` the WordNet id."""
    wnid = _WNID.fullmatch(name)
    return wnid[1] if wnid else class_key(name).replace("_", " ").casefold()


def are_wnids(names: Sequence[str]) -> bool:
    """Whether all names are WordNet ids."""
    return all(_WNID.fullmatch(name) for name in names)


def imagenet_names() -> tuple[str, ...]:
    """torchvision's words for the classes of ImageNet-1k, in the order of their ids."""
    return tuple(light_module("torchvision", "models._meta")._IMAGENET_CATEGORIES)


def described_names() -> tuple[str, ...]:
    """timm's descriptions of the classes of ImageNet-1k, in the order of their ids; timm must be there."""
    info = _timm_info(CLASSES)
    return tuple(info.index_to_description(place) for place in range(CLASSES))


def spellings(names: Sequence[str]) -> Spellings | None:
    """Every spelling of a teacher's classes where its C names are those of a set of ImageNet, in its order.

    They are where each name is one that the class of its place has.
    """
    more = _spellings_of(len(names))
    known = Spellings(tuple(names), more, loose_key)
    is_imagenet = bool(more) and all(
        place in more.get(loose_key(name), ()) for place, name in enumerate(names)
    )
    return known if is_imagenet else None


def assumed_names(classes: int, data_names: Sequence[str]) -> tuple[tuple[str, ...], Found] | None:
    """ImageNet-1k's names for a teacher of 1,000 logits that nobody named, where all names of the data are
    among their spellings, and where those are."""
    if classes != CLASSES:
        return None
    names = imagenet_names()
    found = find(Spellings(names, _spellings_of(CLASSES), loose_key), data_names)
    return None if found.unknown else (names, found)


def find(known: Spellings, names: Sequence[str]) -> Found:
    """As :meth:`Spellings.find`; the thousand WordNet ids of ImageNet-1k are known without timm too."""
    if len(names) == len(known.names) == CLASSES and _digest(names) == _WNIDS_SHA256:
        places = np.empty(CLASSES, np.int32)
        places[np.argsort(np.array(names))] = np.arange(CLASSES)
        return Found(places)
    return known.find(names)


def find_classes(known: Sequence[str], names: Sequence[str]) -> Found:
    """Where classes are among known ones: letter for letter, or by any spelling of ImageNet's classes.

    ``known``: in the order of their ids, all of a set of ImageNet or some classes of ImageNet-1k.
    """
    whole = spellings(known)
    if whole is not None:
        return find(whole, names)
    found = Spellings(tuple(known)).find(names)
    if not found.unknown:
        return found
    some = _some_spellings(known)
    return found if some is None else some.find(names)


def _some_spellings(known: Sequence[str]) -> Spellings | None:
    """As :func:`spellings`, of names that are all classes of ImageNet-1k; None where one is not."""
    more = _spellings_of(CLASSES)
    found = find(Spellings(imagenet_names(), more, loose_key), known)
    if found.unknown:
        return None
    # A name that may be several classes of the thousand has no further spellings here.
    ids = {place: index for index, place in enumerate(found.places.tolist()) if place >= 0}
    kept = {key: frozenset(ids[place] for place in places if place in ids) for key, places in more.items()}
    return Spellings(tuple(known), {key: places for key, places in kept.items() if places}, loose_key)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()


@lru_cache(maxsize=2)
def _spellings_of(classes: int) -> dict[str, frozenset[int]]:
    """Ids by spelling of the set of ImageNet with that many classes; empty where nobody knows one."""
    found: dict[str, set[int]] = defaultdict(set)
    for place, spelling in _spelled(classes):
        found[loose_key(spelling)].add(place)
    return {spelling: frozenset(places) for spelling, places in found.items()}


def _spelled(classes: int) -> Iterator[tuple[int, str]]:
    info = _timm_info(classes)
    for place in range(classes) if info else ():
        yield place, info.index_to_label_name(place)
        yield from ((place, word) for word in _words(info.index_to_description(place)))
    if classes == CLASSES:
        for place, name in enumerate(imagenet_names()):
            yield from ((place, word) for word in _words(name))
        for name, places in _REPEATED.items():
            yield from ((place, name) for place in places)


def _words(description: str) -> list[str]:
    """A whole description and each of the words it lists."""
    return [description, *(word.strip() for word in description.split(","))]


def _timm_info(classes: int) -> Any:
    """timm's table of a set of ImageNet; None where timm is not installed or has none of that size."""
    if classes not in _SUBSETS:
        return None
    try:
        return light_module("timm", "data.imagenet_info").ImageNetInfo(_SUBSETS[classes])
    except ModuleNotFoundError:
        return None


def has_timm() -> bool:
    """Whether WordNet ids and WordNet's words can be looked up."""
    return _timm_info(CLASSES) is not None
