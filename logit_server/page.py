"""A page: the records of one view in a sparse mapped file that all workers share, filled block by block.

A page knows rows only: one for each position of the view, where a sample has several.

The file begins with an index of 64-bit words, which every worker maps to read and write:

- a count of evictions, the rows of the view, the rows of a block, the bytes of a record;
- by block, whether its records are there (its mark), and when it was last used: in nanoseconds of the clock
  that counts from the boot of the machine, which is the same in all workers and never jumps.

Marks are read without a lock, so their order decides what may be believed. Who loads a block writes its
records first and its mark last. Who evicts one clears the mark, raises the count and only then gives the
records' memory back. Who reads looks at the count, at the marks, takes the records, and looks at the count
again: where it is the same, what was taken was there all along.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.layout import Blocks

_WORD = 8
_WORDS_BEFORE_BLOCKS = 4
# Records begin where the operating system can map from, also on other processors.
_ALIGNMENT = max(mmap.ALLOCATIONGRANULARITY, 2**14)
_TOUCHED_EVERY = 4096
_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02
"""Mode of Linux' fallocate(2)."""


class PageFile:
    """A page file with its index mapped: what is there, and how to be rid of it."""

    def __init__(self, path: Path) -> None:
        """Open a file that :func:`create` made; :class:`ValueError` for one that was cut off since."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        found = os.fstat(self._descriptor)
        self.inode = found.st_ino
        """Names the file for as long as it is open, whatever has its path."""
        head = np.frombuffer(os.pread(self._descriptor, _WORD * _WORDS_BEFORE_BLOCKS, 0), np.uint64)
        _, samples, height, record_bytes = map(int, head)
        self.record_bytes = record_bytes
        self.blocks = Blocks(samples, height)
        if not _is_whole(found, self.blocks, record_bytes):
            raise ValueError(f"{path} was cut off")
        self._start = index_bytes(self.blocks)
        words = np.frombuffer(mmap.mmap(self._descriptor, self._start), np.uint64)
        self._evictions = memoryview(words[:1])  # type: ignore[arg-type]
        by_block = words[_WORDS_BEFORE_BLOCKS:][: 2 * len(self.blocks)]
        self.marks, self.used_ns = by_block.reshape(2, len(self.blocks))

    def nbytes(self, block: int) -> int:
        """Bytes of a block's records."""
        return len(self.blocks.rows(block)) * self.record_bytes

    def resident(self) -> list[int]:
        """The blocks that are there."""
        return [int(block) for block in np.flatnonzero(self.marks)]

    def last_use_ns(self, block: int, now_ns: int) -> int:
        """When a block was last used; 0 for a stamp that lies in the future, which no worker wrote."""
        used_ns = int(self.used_ns[block])
        return used_ns if used_ns <= now_ns else 0

    def evict(self, block: int) -> int:
        """Give the memory of a block back; returns its bytes, or those of every block where all had to go.

        Who calls holds the folder's lock.
        """
        freed = self.nbytes(block)
        if not self.marks[block]:
            return 0  # it went with another one
        self.marks[block] = 0
        self._evictions[0] += 1
        if not punch_hole(self._descriptor, self._offset(block), freed):
            # Workers that have the file mapped keep its memory until they notice (see Pages.refresh).
            freed += sum(self.nbytes(other) for other in self.resident())
            self.marks[:] = 0
            self.path.unlink(missing_ok=True)
        return freed

    def is_current(self) -> bool:
        """Whether the file is still the one at its path, and whole.

        It is asked once a second, not before records are taken: that would cost each request a system call of
        some microseconds, and a file could still be cut off right after it.
        """
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # its memory is there all the same
        return found.st_ino == self.inode and _is_whole(found, self.blocks, self.record_bytes)

    def _offset(self, block: int) -> int:
        return self._start + self.blocks.rows(block).start * self.record_bytes


class Page(PageFile):
    """A page file with its records mapped too, to read from and to fill."""

    def __init__(self, path: Path) -> None:
        """Map a file that :func:`create` made."""
        super().__init__(path)
        shape = (self.blocks.samples, self.record_bytes)
        mapped = mmap.mmap(self._descriptor, shape[0] * shape[1], prot=mmap.PROT_READ, offset=self._start)
        self.records = np.frombuffer(mapped, np.uint8).reshape(shape)
        """uint8 [N, record_bytes], read-only: rows in order; where a block is not there, anything."""
        self._used = np.zeros(len(self.blocks), np.bool_)
        self._whole_at = -1
        """The count of evictions at which every block was there."""
        self._whole_is_used = False
        for block in self.resident():
            self._touch(block)

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8] | None:
        """The records of ``rows``, uint8 [n, record_bytes]; None where a block of theirs is not there.

        Raises :class:`IndexError` for rows that the view does not have.
        """
        evictions = self._evictions[0]
        if evictions == self._whole_at:
            self._whole_is_used = True
        elif not self._are_there(rows // self.blocks.height, evictions):
            return None
        # Rows are unsigned on the wire; `take` itself refuses those that are too large.
        records = self.records.take(rows, axis=0)
        return records if self._evictions[0] == evictions else None

    def take_range(self, rows: range) -> NDArray[np.uint8] | None:
        """As :meth:`take`, of consecutive rows: a copy."""
        met, evictions = self.blocks.meeting(rows), self._evictions[0]
        if not self._are_there(np.arange(met.start, met.stop), evictions):
            return None
        records = self.records[rows.start : rows.stop].copy()
        return records if self._evictions[0] == evictions else None

    def _are_there(self, blocks: NDArray[np.integer[Any]], evictions: int) -> bool:
        if not self.marks.take(blocks).all():
            return False
        self._used[blocks] = True
        if self.marks.all():
            self._whole_at = evictions
        return True

    def put(self, block: int, records: NDArray[np.uint8]) -> None:
        """Keep the records of a block; who calls holds the folder's lock."""
        # Written, not copied into mapped memory: a full disk is then an error and not a SIGBUS.
        data, offset = records.reshape(-1).data, self._offset(block)
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
        self.used_ns[block] = time.monotonic_ns()
        self.marks[block] = 1
        self._touch(block)

    def _touch(self, block: int) -> None:
        """Fill the page table for a block's records, so that no request pays for the first touch."""
        rows = self.blocks.rows(block)
        self.records[rows.start : rows.stop].reshape(-1)[::_TOUCHED_EVERY].max(initial=0)

    def note_use(self) -> None:
        """Tell the other workers which blocks were used here since the last call."""
        used, self._used = self._used, np.zeros_like(self._used)
        whole, self._whole_is_used = self._whole_is_used, False
        self.used_ns[slice(None) if whole else used] = time.monotonic_ns()


def index_bytes(blocks: Blocks) -> int:
    """Bytes before the records of a page file."""
    return -(-_WORD * (_WORDS_BEFORE_BLOCKS + 2 * len(blocks)) // _ALIGNMENT) * _ALIGNMENT


def file_bytes(blocks: Blocks, record_bytes: int) -> int:
    """Bytes of a page file."""
    return index_bytes(blocks) + blocks.samples * record_bytes


def _is_whole(found: os.stat_result, blocks: Blocks, record_bytes: int) -> bool:
    """Whether nobody cut a page file off: to read on in mapped memory would end the process."""
    return found.st_size == file_bytes(blocks, record_bytes)


def create(path: Path, blocks: Blocks, record_bytes: int) -> None:
    """Make a page file without any block, unless it is there whole; who calls holds the folder's lock."""
    with contextlib.suppress(FileNotFoundError):
        if _is_whole(path.stat(), blocks, record_bytes):
            return
    head = np.array([0, blocks.samples, blocks.height, record_bytes], np.uint64).tobytes()
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            # The index is written, so that its mapped memory is on the disk; the rest is a hole.
            file.write(head.ljust(index_bytes(blocks), b"\0"))
            file.truncate(file_bytes(blocks, record_bytes))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def punch_hole(descriptor: int, offset: int, nbytes: int) -> bool:
    """Give back the memory of a part of a file, which then reads as zeros; False where it cannot be done."""
    with contextlib.suppress(AttributeError):  # a system without fallocate
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        return bool(fallocate(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, offset, nbytes) == 0)
    return False
