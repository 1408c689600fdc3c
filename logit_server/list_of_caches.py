"""The list of caches as it was read again: what is new on it, and what left it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from logit_server.shelf import Slot
from logit_server.sources_of_caches import Source, split_name


class ListOfCaches:
    """The items of the setting ``caches`` and the sources found there. Looks go by maps: lists are long."""

    def __init__(self, items: Iterable[str], found: Iterable[Source]) -> None:
        """``found``: what :func:`sources` gives of the items just now."""
        self._found = list(found)
        self._filled = {Path(source.folder) for source in self._found if source.folder is not None}
        """The folders on the list that hold caches."""
        self._names: dict[Path, set[str | None]] = defaultdict(set)
        """Those that each place on the list is to be served by; None for that of its manifest."""
        for item in items:
            name, location = split_name(item)
            self._names[Path(location)].add(name)

    def differences(self, slots: Iterable[Slot]) -> tuple[list[Source], list[Slot]]:
        """The sources that none of the slots is of, and the slots that are on the list no longer."""
        left, at = dict.fromkeys(slots), defaultdict[str, list[Slot]](list)
        for slot in left:
            at[slot.location].append(slot)
        new = []
        for source in self._found:
            is_of = (
                slot for slot in at[source.location] if source.name in (None, slot.name) and slot in left
            )
            found = next(is_of, None)
            if found is None:
                new.append(source)
            else:
                del left[found]
        return new, [slot for slot in left if not self._keeps(slot)]

    def _keeps(self, slot: Slot) -> bool:
        """Whether a cache is on the list although nothing was found where it lies: its disk may be missing.

        It is named itself, or its folder of caches is and has none now.
        """
        if self._names.get(Path(slot.location), set()) & {None, slot.name}:
            return True
        folder = Path(slot.location).parent
        return folder in self._names and folder not in self._filled
