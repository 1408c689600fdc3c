"""The page files of one server run: made once, mapped by every worker, evicted by a byte budget.

Several processes work on the folder at once, so everything that matters is under a file lock, which the
kernel releases when its holder dies:

- ``<page>.lock`` while a page is looked up or loaded: one load, however many ask;
- ``budget.lock`` while room is made and a page is written: the budget holds across workers;
- ``run.lock``, shared, for as long as a process of the run lives: a folder whose lock is free is litter.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import StorageError
from logit_server.served_caches import ServedCache
from logit_server.storage import read_page


@dataclass(frozen=True)
class Page:
    """All records of one view: read-only memory of a mapped file."""

    records: NDArray[np.uint8]
    """uint8 [N, record_bytes]: rows in order."""
    inode: int
    """Names the file for as long as it is mapped, whatever has its path."""


_PREFIX = "kdcache-pages-"
_RUN_LOCK = "run.lock"
# Pages are mapped with their page table filled, so that no request pays for the first touch.
_POPULATE: int = getattr(mmap, "MAP_POPULATE", 0)


class PageFolder:
    """The page files below one folder, at most ``budget_bytes`` of them."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder = folder
        self._budget_bytes = budget_bytes

    def path(self, cache_id: str, view: int) -> Path:
        """Where the page of a view is, if it is."""
        return self.folder / f"{cache_id}-{view:05d}.page"

    def open(self, served: ServedCache, view: int) -> Page:
        """Map the page, after loading it from the cache where nobody has.

        Blocks for as long as the load takes, whoever does it. Raises :class:`CorruptCacheError` or
        :class:`StorageError`, after which the next call tries again.
        """
        try:
            return self._open(self.path(served.cache_id, view), served, view)
        except OSError as error:
            raise StorageError(
                f"cache {served.name!r}, view {view}: its page of {served.page_bytes:,} bytes could not be "
                f"kept in the page folder ({error.strerror}); free space there or set another page_dir"
            ) from error

    def _open(self, path: Path, served: ServedCache, view: int) -> Page:
        self.folder.mkdir(mode=0o700, exist_ok=True)  # again: something may tidy up temporary folders
        with _locked(path.with_suffix(".lock")):
            with contextlib.suppress(FileNotFoundError):
                return _map(path, (served.samples, served.record_bytes))
            return self._keep(path, read_page(served, view))

    def touch(self, used: set[Path], mapped: Mapping[Path, Page]) -> set[Path]:
        """Note that the pages of ``used`` are in use; returns those of ``mapped`` that were evicted."""
        # Given, because the file system's own clock ticks in milliseconds: too coarse an order.
        now = time.time_ns()
        for path in used:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(now, now))
        return {path for path, page in mapped.items() if _inode(path) != page.inode}

    def _keep(self, path: Path, records: NDArray[np.uint8]) -> Page:
        with _locked(self.folder / "budget.lock"):
            self._make_room(records.nbytes)
            partial = path.with_suffix(".partial")
            try:
                # Written, not mapped and filled: a full disk is then an error and not a SIGBUS.
                partial.write_bytes(records.data)
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
            return _map(path, records.shape)

    def _make_room(self, nbytes: int) -> None:
        for left_behind in self.folder.glob("*.partial"):
            left_behind.unlink(missing_ok=True)
        pages = [(page.stat(), page) for page in self.folder.glob("*.page")]
        excess = sum(stat.st_size for stat, _ in pages) + nbytes - self._budget_bytes
        for stat, page in sorted(pages, key=lambda item: item[0].st_mtime_ns):
            if excess <= 0:
                break
            # Workers that have it mapped keep their memory until they notice (see Pages.refresh).
            page.unlink()
            excess -= stat.st_size


@contextlib.contextmanager
def run_folder(parent: Path | None) -> Iterator[Path]:
    """A private folder for the pages of one run, removed at the end.

    ``parent`` defaults to the system's temporary folder. What killed runs left there is removed first.
    """
    home = parent or Path(tempfile.gettempdir())
    try:
        home.mkdir(parents=True, exist_ok=True)
        sweep(home)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    except OSError as error:
        raise StorageError(
            f"the page folder {home} cannot be used ({error.strerror}); set another with KDCACHE_PAGE_DIR"
        ) from error
    try:
        with joined_run(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def joined_run(folder: Path) -> Iterator[Path]:
    """Take part in a run: its folder is not litter while the context lasts."""
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
def _locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, kind)
        yield


def _map(path: Path, shape: tuple[int, ...]) -> Page:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | _POPULATE, prot=mmap.PROT_READ)
        return Page(np.frombuffer(mapped, np.uint8).reshape(shape), os.fstat(file.fileno()).st_ino)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
