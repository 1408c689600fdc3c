"""What objects and records of a store came to, tile by tile, and the two checks that follow."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cache_builder.format.commits import REPAIR, Shard
from cache_builder.format.held import HeldStore
from cache_builder.format.layout import Tile
from cache_builder.verify.report import Check, Outcome, named, ok


@dataclass
class Tally:
    """What the objects and records of the tiles so far came to."""

    objects: int = 0
    nbytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Objects that are not what their commits say."""
    decoded: int = 0
    """Records."""
    odd: list[str] = field(default_factory=list)
    """Records that are not what they should be."""
    odd_beyond_records: str = ""
    """What ended the decoding, though every object is what its commit says."""
    tiles: int = 0

    def compare(
        self,
        wanted: Iterable[tuple[Tile, str, Shard]],
        held: HeldStore,
        owner: Callable[[tuple[int, int]], str | None],
    ) -> None:
        """Compare objects in memory with their commits; ``owner``: the key of a size and a CRC-32."""
        for tile, key, shard in wanted:
            found = held.held[key]
            data = None if found is None else found.data
            self.objects += 1
            self.nbytes += len(data or b"")
            problem = _shard_problem(key, data, shard, owner)
            if problem:
                self.damaged.append(f"{key} ({tile}) {problem}")

    def shards(self) -> Check:
        """The check of the objects."""
        if self.damaged:
            said = f"{len(self.damaged)} of {self.objects}: {named(self.damaged, 3)}; {REPAIR}"
            return Check("shards", Outcome.DAMAGED, said)
        said = f"{self.objects} match their checksums, {self.nbytes / 1e6:.2f} MB"
        return ok("shards", said, bytes=self.nbytes)

    def records(self, unread: int) -> Check:
        """The check of the records, of which ``unread`` rows are declared invalid."""
        if self.odd_beyond_records:
            return Check("records", Outcome.DAMAGED, self.odd_beyond_records)
        if self.odd:
            said = f"{len(self.odd)}: {named(self.odd, 3)}; rebuild the cache"
            return Check("records", Outcome.DAMAGED, said)
        return ok("records", f"{self.decoded:,} decode to finite logits, {unread} invalid rows as declared")


def _shard_problem(
    key: str, data: bytes | None, shard: Shard, owner: Callable[[tuple[int, int]], str | None]
) -> str | None:
    if data is None:
        return "is missing"
    found = (len(data), zlib.crc32(data))
    if found == (shard.bytes, shard.crc32):
        return None
    other = owner(found)
    if other is not None and other != key:
        return f"holds the bytes of {other}: one was copied over the other"
    if len(data) != shard.bytes:
        return f"has {len(data)} bytes instead of {shard.bytes}"
    return "fails its checksum"
