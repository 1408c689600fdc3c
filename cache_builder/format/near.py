"""A remote cache, as near as it can be had: from memory, from this machine's disk, else from its store.

What two threads ask for at the same time is fetched once. What will be asked for next is fetched before.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import WrapperStore

from cache_builder.format.backends.processes import check_process
from cache_builder.format.block_cache.folder import BlockName
from cache_builder.format.block_cache.keeper import Block, BlockKeeper
from cache_builder.format.errors import KDCacheError
from cache_builder.format.held import Wish, fetched
from cache_builder.format.remote import RemoteStore
from cache_builder.format.store import ask_many
from cache_builder.format.waiting import patience_at_most
from cache_builder.format.walk import MOST_AHEAD, Walk

_READY_BYTES = 2**25
"""Most bytes in memory that were fetched ahead and that nobody has asked for yet."""
_FRESH_BYTES = 2**26
"""Most bytes that wait for being written: where a disk is slower than the store, others are not kept."""
_AHEAD_THREADS = MOST_AHEAD

_Part = tuple[str, range | None]
"""A key, and which bytes of the object; None = all."""


class NearStore(WrapperStore[RemoteStore]):
    """The objects of one sealed cache, which never change, whole or in ranges.

    On the disk only whole objects are kept, and only those that are what the manifest or a commit says: what
    is wrong in a store for a while must not outlast that here. Parts of a large shard cannot be compared so.
    """

    def __init__(self, store: RemoteStore, cache_id: str, keeper: BlockKeeper | None) -> None:
        """``keeper``: None where nothing is kept on the disk."""
        super().__init__(store)
        self._cache_id = cache_id
        self._keeper = keeper
        self._expected: dict[str, Wish] = {}
        self._running: dict[_Part, asyncio.Task[memoryview | None]] = {}  # used on the event loop alone
        self._lock = threading.Lock()
        self._ready: OrderedDict[_Part, memoryview] = OrderedDict()
        self._fresh: dict[str, memoryview] = {}
        self._fresh_bytes = 0
        self._is_kept_soon = False
        self._is_far = False
        """Whether the store was needed since the last look: what is on the disk need not be fetched ahead."""
        self._walks = threading.local()
        self._ahead = ThreadPoolExecutor(_AHEAD_THREADS, thread_name_prefix="blocks-ahead")

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The object or a range of it, None where there is none."""
        check_process(self._store.url())
        if byte_range is not None and not isinstance(byte_range, RangeByteRequest):
            return await super().get(key, prototype, byte_range)
        wanted = None if byte_range is None else range(byte_range.start, byte_range.end)
        found = await self._found((key, wanted))
        return None if found is None else prototype.buffer.from_bytes(found)

    async def _found(self, part: _Part) -> memoryview | None:
        with self._lock:
            ready = self._ready.pop(part, None)
        if ready is not None:
            self._is_far = True
            return ready
        running = self._running.get(part)
        if running is not None:
            # Its failure, and that somebody gave it up, are no matter of ours: then we ask ourselves.
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is None:
                return running.result()
        task = asyncio.ensure_future(self._fetched(part))
        self._running[part] = task
        try:
            return await task
        finally:
            if self._running.get(part) is task:
                del self._running[part]

    async def _fetched(self, part: _Part) -> memoryview | None:
        """From the disk, else from the store."""
        key, wanted = part
        keeper = self._keeper if wanted is None else None
        # Looked for here: a thread waits for the interpreter where others decode.
        if keeper is not None and keeper.has(self._name(part)):
            kept = await asyncio.to_thread(keeper.read, self._name(part))
            if kept is not None:
                keeper.counts.hits += 1
                keeper.counts.hit_bytes += len(kept)
                with self._lock:
                    self._expected.pop(key, None)
                return kept
        self._is_far = True
        request = None if wanted is None else RangeByteRequest(wanted.start, wanted.stop)
        value = await self._store.get(key, default_buffer_prototype(), request)
        if value is None:
            return None
        data = memoryview(value.to_bytes())
        if keeper is not None:
            keeper.counts.misses += 1
            keeper.counts.missed_bytes += len(data)
            self._put_fresh(key, data)
        return data

    def _put_fresh(self, key: str, data: memoryview) -> None:
        with self._lock:
            if self._fresh_bytes + len(data) <= _FRESH_BYTES:
                self._fresh_bytes += len(data) - len(self._fresh.get(key, b""))
                self._fresh[key] = data

    def expect(self, wishes: Iterable[Wish]) -> None:
        """Note what whole objects must be, before they are fetched."""
        with self._lock:
            self._expected |= {one.key: one for one in wishes if one.is_whole and one.crc32 is not None}

    def prove(self, objects: Mapping[str, bytes]) -> None:
        """Keep objects of these bytes if they were fetched: their values have the manifest's digest."""
        self.expect([Wish(key, len(data), crc32=zlib.crc32(data)) for key, data in objects.items()])
        self.keep()

    def _name(self, part: _Part) -> BlockName:
        return BlockName.of(self._cache_id, self._store.url(), *part)

    def keep(self) -> None:
        """Have written to the disk what was fetched since the last call. Nobody waits for it."""
        check_process(self._store.url())
        with self._lock:
            if self._keeper is None or not self._fresh or self._is_kept_soon:
                return
            self._is_kept_soon = True
        self._keeper.keep(self._take_fresh)

    def _take_fresh(self) -> list[Block]:
        """What is proven to be right. What may be proven yet stays; what is wrong goes."""
        with self._lock:
            expected = {key: self._expected.pop(key) for key in self._fresh if key in self._expected}
            fresh = {key: self._fresh.pop(key) for key in expected}
            self._fresh_bytes, self._is_kept_soon = sum(map(len, self._fresh.values())), False
        right = [key for key, data in fresh.items() if _fits(data, expected[key])]
        return [(self._name((key, None)), fresh[key]) for key in right]

    def forget(self, keys: Iterable[str]) -> None:
        """Forget objects whose bytes do not decode: the store is to be asked again."""
        wanted = set(keys)
        with self._lock:
            for part in [part for part in self._ready if part[0] in wanted]:
                del self._ready[part]
            for key in wanted & self._fresh.keys():
                self._fresh_bytes -= len(self._fresh.pop(key))
        self.keep()  # so that what waits is forgotten after it
        if self._keeper is not None:
            self._keeper.forget({self._name((key, None)).object for key in wanted})

    def coming(self, what: Hashable, first: int, last: int, block_bytes: int) -> range:
        """The blocks to fetch ahead, when this thread has read the blocks ``first`` to ``last``.

        ``block_bytes``: about what is fetched of one.
        """
        most = min(MOST_AHEAD, _READY_BYTES // 2 // max(1, block_bytes))
        walk = Walk.on(getattr(self._walks, "now", None), what, first, last, most)
        if not self._is_far:
            walk = replace(walk, coming=range(walk.coming.start, walk.coming.start))
        self._walks.now, self._is_far = walk, False
        return walk.coming

    def fetch_ahead(self, wishes: Iterable[Wish], indexes: dict[str, bytes]) -> None:
        """Fetch what will be asked for next, in a thread; what becomes of it shows when somebody asks."""
        check_process(self._store.url())
        by_key, context = {wish.key: wish for wish in wishes}, contextvars.copy_context()
        self.expect(by_key.values())

        async def one(key: str) -> None:
            held = await fetched(self, by_key[key], indexes)
            if held is not None and (by_key[key].is_whole or len(held.pieces) > 1):
                start, data = held.pieces[-1]
                part = None if by_key[key].is_whole else range(start, start + len(data))
                self._put_ready((key, part), memoryview(data))

        def fetch() -> None:
            # Who needs it will wait for a store that is away; nobody's end waits for this.
            with suppress(KDCacheError, OSError), patience_at_most(0):
                ask_many(one, list(by_key))
            self.keep()

        with suppress(RuntimeError):  # the interpreter ends
            self._ahead.submit(context.run, fetch)

    def _put_ready(self, part: _Part, data: memoryview) -> None:
        """Hold what was fetched ahead; what nobody came for is dropped."""
        with self._lock:
            self._ready[part] = data
            held = sum(map(len, self._ready.values()))
            while held > _READY_BYTES:
                held -= len(self._ready.popitem(last=False)[1])


def _fits(data: memoryview, wish: Wish) -> bool:
    """Whether an object is what its commit says."""
    return len(data) == wish.size and zlib.crc32(data) == wish.crc32
