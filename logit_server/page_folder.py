"""The page files of one server run: shared by its workers, filled block by block, within a byte budget.

Several processes work on the folder at once, so everything that matters is under a file lock, which the
kernel releases when its holder dies:

- ``<page>-<part>.lock`` while a block is looked up or loaded: one load, however many ask;
- ``budget.lock`` while room is made and a block is written: the budget holds across workers. The file holds
  the bytes of all blocks, so that room is looked for only when the budget is used up;
- ``run.lock``, shared, for as long as a process of the run lives: a folder whose lock is free is litter.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import StorageError
from cache_builder.format.codecs import Part
from logit_server.page import Page, PageFile, create
from logit_server.page_watch import PageWatch
from logit_server.private_folder import make_private
from logit_server.readers import Readers
from logit_server.served_caches import ServedCache
from logit_server.storage import read_block

_PREFIX = "kdcache-pages-"
_RUN_LOCK = "run.lock"
_BUDGET_LOCK = "budget.lock"
_PROBE_BYTES = 4096
# Blocks of a view that have a lock of their own; others share one, and wait without need.
_PARTS = 16
_ORDER = sys.byteorder


class PageFolder:
    """The page files below one folder, with at most ``budget_bytes`` of records."""

    def __init__(
        self,
        folder: Path,
        budget_bytes: int,
        readers: Readers | None = None,
        watch: PageWatch | None = None,
    ) -> None:
        """``readers``: what reads the blocks; without it, the calling thread."""
        self.folder = folder
        self._readers = readers
        self._watch = watch or PageWatch()
        self._budget_bytes = budget_bytes

    def path(self, cache_id: str, view: int, part: Part = Part.WHOLE) -> Path:
        """Where the page of a part of a view's records is, if it is."""
        return self.folder / f"{cache_id}-{view:05d}-{part}.page"

    def used_bytes(self) -> int:
        """Bytes of all blocks in the folder, of every worker; 0 before the first one."""
        try:
            return int.from_bytes((self.folder / _BUDGET_LOCK).read_bytes()[:8], _ORDER)
        except OSError:
            return 0

    def check_room(self, block_bytes: int) -> None:
        """Raise :class:`StorageError` where a block of so many bytes could not be kept just now."""
        try:
            make_private(self.folder)  # as a load does
            # It has no name: who makes room removes what is called *.partial.
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(bytes(_PROBE_BYTES))
            disk = os.statvfs(self.folder)
        except OSError as error:
            raise StorageError(
                f"nothing can be written there ({error.strerror}); free space or mend it, or set another "
                "page_dir"
            ) from error
        free = disk.f_bavail * disk.f_frsize
        evicts = self.used_bytes() + block_bytes > self._budget_bytes
        if disk.f_blocks and free < block_bytes and not evicts:
            raise StorageError(
                f"its disk has {free:,} bytes left, and a block takes {block_bytes:,}: free space there, set "
                "another page_dir or a smaller page_bytes"
            )

    def open(self, served: ServedCache, view: int, part: Part = Part.WHOLE) -> Page:
        """Map the page of a part of a view's records, made here where nobody has; no record is read.

        Raises :class:`StorageError` where the folder cannot be used.
        """
        path = self.path(served.cache_id, view, part)
        with _kept(served, f"view {view}"):
            make_private(self.folder)  # again: something may tidy up temporary folders
            with _locked(self.folder / _BUDGET_LOCK):
                create(path, served.blocks, served.part_bytes(part))
                return Page(path)

    def load(
        self, served: ServedCache, view: int, page: Page, block: int, part: Part = Part.WHOLE
    ) -> NDArray[np.uint8]:
        """The part that a page has of a block's records, read from the cache and kept where nobody has.

        Blocks for as long as the load takes, whoever does it. Raises :class:`CorruptCacheError` or
        :class:`StorageError`, after which the next call tries again.
        """
        rows = served.cache.blocks.rows(block)
        with _kept(served, f"view {view}, rows {rows.start}-{rows.stop - 1}"):
            make_private(self.folder)
            with _locked(page.path.with_name(f"{page.path.stem}-{block % _PARTS:02d}.lock")):
                kept = page.take_range(served.blocks.rows(block))
                if kept is not None:
                    return kept
                read = read_block if self._readers is None else self._readers.read_block
                with self._watch.loading(served, view, page.nbytes(block)):
                    records = read(served, view, block, part)
                self._keep(page, block, records)
                return records

    def _keep(self, page: Page, block: int, records: NDArray[np.uint8]) -> None:
        with _locked(self.folder / _BUDGET_LOCK) as lock:
            total = int.from_bytes(os.pread(lock, 8, 0), _ORDER) + records.nbytes
            if total > self._budget_bytes:
                total = self._make_room(records.nbytes)
            # Before the block is there: a worker that is killed in between leaves too high a number, which is
            # put right when room is next made.
            os.pwrite(lock, total.to_bytes(8, _ORDER), 0)
            page.put(block, records)

    def remove(self, page: PageFile) -> None:
        """Remove a page that nobody needs any more; who has it mapped may go on to read it."""
        with contextlib.suppress(OSError), _locked(self.folder / _BUDGET_LOCK) as lock:
            if not page.is_current():
                return  # another worker was faster
            page.path.unlink()
            for lock_of_part in self.folder.glob(f"{page.path.stem}-*.lock"):
                lock_of_part.unlink(missing_ok=True)
            freed = sum(map(page.nbytes, page.resident()))
            total = max(0, int.from_bytes(os.pread(lock, 8, 0), _ORDER) - freed)
            os.pwrite(lock, total.to_bytes(8, _ORDER), 0)

    def _make_room(self, nbytes: int) -> int:
        """Evict what was unused for longest; returns the bytes of all blocks with ``nbytes`` of new ones."""
        for left_behind in self.folder.glob("*.partial"):
            left_behind.unlink(missing_ok=True)
        files = list(self._whole_files())
        # No page is of another boot, whose clock this is not; a stamp of the future is damage, and is old.
        now_ns = time.monotonic_ns()
        blocks = [
            (file.last_use_ns(block, now_ns), file, block) for file in files for block in file.resident()
        ]
        total = wanted = sum(file.nbytes(block) for _, file, block in blocks) + nbytes
        evicted = 0
        for _, file, block in sorted(blocks, key=lambda item: item[0]):
            if total <= self._budget_bytes:
                break
            total -= file.evict(block)
            evicted += 1
        self._watch.evicted(evicted, wanted - total)
        return total

    def _whole_files(self) -> Iterator[PageFile]:
        """The page files, without those that somebody cut off, which are removed."""
        for path in self.folder.glob("*.page"):
            try:
                yield PageFile(path)
            except ValueError:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _kept(served: ServedCache, what: str) -> Iterator[None]:
    """Turn what the page folder raises into an error that says what to do."""
    try:
        yield
    except OSError as error:
        is_of_files = error.errno in (errno.EMFILE, errno.ENFILE)
        mend = "raise the limit of open files" if is_of_files else "free space there or set another page_dir"
        raise StorageError(
            f"cache {served.name!r}, {what}: its page could not be kept in the page folder "
            f"({error.strerror}); {mend}"
        ) from error


@contextlib.contextmanager
def run_folder(parent: Path | None) -> Iterator[Path]:
    """A private folder for the pages of one run, removed at the end.

    ``parent`` defaults to the system's temporary folder. What killed runs left there is removed first.
    """
    home = parent or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            sweep(home)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(joined_run(folder))
        except OSError as error:
            raise StorageError(
                f"the page folder {home} cannot be used ({error.strerror}); set another with KDCACHE_PAGE_DIR"
            ) from error
        yield folder


@contextlib.contextmanager
def joined_run(folder: Path) -> Iterator[Path]:
    """Take part in a run: its folder is not litter while the context lasts.

    Raises :class:`PermissionError` where somebody else has its name.
    """
    make_private(folder)
    with _locked(folder / _RUN_LOCK, fcntl.LOCK_SH):
        yield folder


def sweep(home: Path) -> None:
    """Remove the page folders of runs of this user of which no process is left."""
    for folder in home.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _is_free(folder / _RUN_LOCK):
                shutil.rmtree(folder)


def _is_free(lock: Path) -> bool:
    # A folder without the lock file may be one that is being made.
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


@contextlib.contextmanager
def _locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the lock of a file, made where it is not there; gives its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)
