"""Whether somebody reads block after block, and which blocks come next."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

MOST_AHEAD = 8
"""Blocks: two requests 20 ms away take as long as decoding four blocks of 60 bytes a record."""
_FIRST_AHEAD = 4
"""The window begins with so many blocks and doubles: little is fetched for nobody."""


@dataclass(frozen=True)
class Walk:
    """Readings of blocks, of which each begins where the one before it ended."""

    what: Hashable
    """What is read of the blocks: the same in every step."""
    last: int
    """The block that was read last."""
    coming: range
    """The blocks that are to be fetched ahead now; none where the last step did not follow another one."""
    window: int
    """So many blocks beyond the last one are fetched, or will be by now."""

    @classmethod
    def on(cls, before: Self | None, what: Hashable, first: int, last: int, most: int = MOST_AHEAD) -> Self:
        """The walk after a reading of the blocks ``first`` to ``last``, which may begin a new one.

        ``most``: blocks that may be fetched ahead.
        """
        if before is None or before.what != what or before.last + 1 != first:
            return cls(what, last, range(last + 1, last + 1), 0)
        window = min(most, max(_FIRST_AHEAD, 2 * before.window))
        start = max(before.coming.stop, last + 1)
        return cls(what, last, range(start, max(start, last + 1 + window)), window)
