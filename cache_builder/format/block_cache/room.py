"""How full a folder of blocks is, and what goes when it is too full: what was unused for longest."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from cache_builder.format.block_cache.folder import BlockFolder

_LOCK = "lock"
_LOOKS = 64
"""What other processes wrote is looked at after every so-manieth part of the limit that this one wrote."""
_LEFT = 0.9
"""To this part of the limit blocks are removed, so that not every one that comes has to remove another."""


class Room:
    """The bytes that a folder of blocks has left, as one process knows them. Used by one thread at a time."""

    def __init__(self, folder: BlockFolder, most_bytes: int, *, spares_disk: bool) -> None:
        """``spares_disk``: the blocks leave at least as much of the disk free as they take."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._spares_disk = spares_disk
        self._taken: int | None = None
        """As it was found, and what came since."""
        self._since_look = 0

    def take(self, size: int) -> bool:
        """Whether there is room for a file of ``size`` bytes on the disk, which counts from now on.

        Where there is none, others are removed, unless another process is doing that just now.
        """
        if self._taken is None or self._since_look > self._most_bytes // _LOOKS:
            self._look()
        assert self._taken is not None
        most = self._most()
        if size > most:
            return False
        if self._taken + size > most:
            self._remove(int(min(most * _LEFT, most - size)))
        if self._taken + size > most:
            return False
        self._taken += size
        self._since_look += size
        return True

    def _look(self) -> None:
        self._taken, self._since_look = sum(file.size for file in self._folder.files()), 0

    def _most(self) -> int:
        if not self._spares_disk:
            return self._most_bytes
        assert self._taken is not None
        return min(self._most_bytes, (shutil.disk_usage(self._folder.path).free + self._taken) // 2)

    def _remove(self, most: int) -> None:
        """Remove the blocks that were unused for longest until no more than ``most`` bytes are taken."""
        with self._locked() as is_mine:
            if not is_mine:
                return
            found = sorted(self._folder.files(), key=lambda file: file.used)
            taken = sum(file.size for file in found)
            for file in found:
                if taken <= most:
                    break
                try:
                    os.unlink(file.path)  # noqa: PTH108 - hundreds of thousands of files
                except FileNotFoundError:
                    pass
                except OSError:
                    continue
                taken -= file.size
            self._taken, self._since_look = taken, 0

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether nobody else removes blocks meanwhile. The lock ends with its process, however that dies."""
        with (self._folder.path / _LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
