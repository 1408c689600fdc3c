"""What a data set's folder or shards hold and the data set leaves out: counted, with an example of each."""

from __future__ import annotations

from collections import Counter

_SHOWN = 4
_NAME_LENGTH = 80
_NO_ENDING = "without an ending"


class LeftOut:
    """Counts what was left out, by what it is."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._endings: Counter[str] = Counter()

    def add(self, kind: str, name: str) -> None:
        """Count something of a ``kind``, such as ``hidden file``, that is called ``name``."""
        self._counts[kind] += 1
        self._first.setdefault(kind, name)

    def add_file(self, kind: str, name: str) -> None:
        """Count a file that its ending leaves out."""
        self.add(kind, name)
        stem, dot, ending = name.rpartition("/")[2].rpartition(".")
        self._endings[f".{ending.lower()}" if stem and dot else _NO_ENDING] += 1

    def join(self, other: LeftOut) -> None:
        """Count also what another one counted."""
        self._counts += other._counts
        self._first = other._first | self._first
        self._endings += other._endings

    def in_words(self) -> str:
        """Such as ``3 x hidden file (the first: 'cat/.a.png')``; empty where nothing was left out."""
        parts = [
            f"{count:,} x {kind} (the first: {_shown(self._first[kind])})"
            for kind, count in self._counts.items()
        ]
        if self._endings:
            parts.append(f"by ending: {self._endings_in_words()}")
        return "; ".join(parts)

    def _endings_in_words(self) -> str:
        most = sorted(self._endings.items(), key=lambda item: (-item[1], item[0]))
        more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
        return ", ".join(f"{count:,} {ending}" for ending, count in most[:_SHOWN]) + more


def _shown(name: str) -> str:
    text = repr(name)
    return text if len(text) <= _NAME_LENGTH else text[:_NAME_LENGTH] + "...'"
