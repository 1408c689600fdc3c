"""Whether somebody reads block after block, and which blocks come next."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Self

_BLOCKS_AHEAD = 2
"""A request to a distant store takes about as long as decoding a block; a shard costs two of them."""


@dataclass(frozen=True)
class Walk:
    """Readings of blocks, of which each begins where the one before it ended."""

    what: Hashable
    """What is read of the blocks: the same in every step."""
    last: int
    """The block that was read last."""
    coming: range
    """The blocks that are to be fetched ahead now; none where the last step did not follow another one."""

    @classmethod
    def on(cls, before: Self | None, what: Hashable, first: int, last: int) -> Self:
        """The walk after a reading of the blocks ``first`` to ``last``, which may begin a new one."""
        if before is None or before.what != what or before.last + 1 != first:
            return cls(what, last, range(last + 1, last + 1))
        start = max(before.coming.stop, last + 1)
        return cls(what, last, range(start, max(start, last + 1 + _BLOCKS_AHEAD)))
