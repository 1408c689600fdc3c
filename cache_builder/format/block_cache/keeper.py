"""Blocks of this process: read from the folder, and kept there behind the back of whoever reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from cache_builder.format.block_cache.folder import BlockFolder, BlockName, DamagedBlockError, disk_bytes
from cache_builder.format.block_cache.room import Room
from cache_builder.format.block_cache.settings import (
    FOLDER_VARIABLE,
    OFF,
    BlockCacheSettings,
    block_cache_settings,
)

log = logging.getLogger(__name__)

_PAUSE_S = 60.0
"""Nothing is written for so long after the folder or its disk refused something."""

Block = tuple[BlockName, memoryview]


@dataclass
class BlockCounts:
    """What was asked of the folder, in this process; counted on Zarr's event loop."""

    hits: int = 0
    """Blocks that were there."""
    misses: int = 0
    """Blocks that were not, and were fetched from their store."""
    hit_bytes: int = 0
    missed_bytes: int = 0
    damaged: int = 0
    """Of the misses: blocks whose bytes were not those that had been written."""


class BlockKeeper:
    """The folder of blocks as one process uses it, from any of its threads."""

    def __init__(self, settings: BlockCacheSettings) -> None:
        self.counts = BlockCounts()
        self._settings = settings
        self._folder = BlockFolder(settings.folder)
        self._room = Room(self._folder, settings.most_bytes, spares_disk=settings.spares_disk)
        # One thread, which ends its work before the interpreter ends.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="block-cache")
        self._paused_until = 0.0
        self._has_warned = False
        problem = self._folder.problem()
        self._is_refused = problem is not None
        if problem is not None:
            self._warn(problem)

    def has(self, name: BlockName) -> bool:
        """Whether a block seems to be there."""
        return not self._is_refused and self._folder.has(name)

    def read(self, name: BlockName) -> memoryview | None:
        """A block; None where the folder does not have it, or not whole."""
        try:
            return self._folder.read(name)
        except DamagedBlockError as error:
            self.counts.damaged += 1
            log.warning("%s is damaged: it is fetched again", error)
            return None

    def keep(self, take: Callable[[], Sequence[Block]]) -> None:
        """Write the blocks that ``take`` gives then; nobody waits for it."""
        self._submit(lambda: self._write(take))

    def forget(self, objects: set[str]) -> None:
        """Remove all blocks of some objects (see :attr:`BlockName.object`), also those that still wait."""
        if self._is_refused:
            return
        done = self._submit(lambda: self._folder.forget(objects))
        if done is not None:
            done.result()

    def settle(self) -> None:
        """Wait until everything is written that was to be kept up to now."""
        done = self._submit(lambda: None)
        if done is not None:
            done.result()

    def _submit(self, work: Callable[[], object]) -> Future[object] | None:
        with suppress(RuntimeError):  # the interpreter ends
            return self._writer.submit(work)
        return None

    def _write(self, take: Callable[[], Sequence[Block]]) -> None:
        blocks = take()
        if not blocks or self._is_refused or time.monotonic() < self._paused_until:
            return
        try:
            problem = self._folder.problem()  # it may have been removed, and be another's by now
            if problem is not None:
                raise OSError(0, problem)
            for name, block in blocks:
                if self._room.take(disk_bytes(len(block))):
                    self._folder.write(name, block)
        except FileNotFoundError:
            pass  # somebody removed the folder meanwhile, as he may
        except OSError as error:
            self._paused_until = time.monotonic() + _PAUSE_S
            self._warn(error.strerror or str(error))

    def _warn(self, problem: str) -> None:
        """Say once why nothing is kept. A folder that nobody named is no reason to worry."""
        level = logging.WARNING if self._settings.is_chosen and not self._has_warned else logging.INFO
        self._has_warned = True
        log.log(
            level,
            "blocks of remote caches are not kept in %s: %s; reading goes on without (%s names another "
            "folder, or %r)",
            self._settings.folder,
            problem,
            FOLDER_VARIABLE,
            OFF,
        )


def block_keeper() -> BlockKeeper | None:
    """The keeper of the folder that the environment names; None where no blocks are kept."""
    settings = block_cache_settings()
    return None if settings is None else _kept(settings)


@lru_cache(maxsize=8)
def _kept(settings: BlockCacheSettings) -> BlockKeeper:
    return BlockKeeper(settings)
