"""A run that lies on an object store: it is trained in a folder of this machine, which is copied there.

What is on the store counts: ``--resume`` begins with its files, on whatever machine. Every process has a
folder of its own, and the main one copies what changed after each checkpoint, so that the machines of a run
need share nothing else. A checkpoint counts once its checksums are there, which come last and go first.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cache_builder.format.errors import ConfigError, KDCacheError, StorageError
from cache_builder.format.locations import is_remote
from cache_builder.format.locks.lock import Hold
from cache_builder.format.owned import LEASE_KEY
from cache_builder.format.store import delete_object, list_keys, open_store, read_bytes, write_from_file
from trainer.run.run_location import leave, run_location, run_path

CONFIG, CHECKSUMS, LAST = "config.json", "checksums.json", "last.safetensors"
_STEP = re.compile(r"(checkpoints/step-\d+)/")
_OURS = re.compile(
    r"config\.json|metrics\.jsonl|(best|last)\.safetensors|report\.md|curves\.png"
    r"|(tensorboard|render-drift)/[^/]+|checkpoints/(damaged-\d+-)?step-\d+/[\w.]+"
)
"""The files of a run. Nothing else that lies at its URL is read, written or removed."""
_ORDER = (re.compile(r"config\.json"), re.compile(r"metrics\.jsonl|tensorboard/"), re.compile("checkpoints/"))
"""What is copied first. Metrics of steps that no checkpoint has are dropped by who goes on, so they may come
early; what names a checkpoint comes after it."""

log = logging.getLogger(__name__)


class _Version(NamedTuple):
    """What changes where a file does."""

    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Version:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


class RemoteRun:
    """The files of a run at a URL, and the folder of this process that they are copied from and to."""

    def __init__(self, url: str, hold: Hold | None = None) -> None:
        """``hold``: the right to write there; None in processes that only read."""
        self.url = url
        self.folder = run_path(url)
        self._hold = hold
        self._store = open_store(url, read_only=hold is None)
        self._copied: dict[str, _Version] = {}
        self._left_out: set[str] = set()

    def fetch(self, resume: bool) -> None:
        """Bring the run's files here; without ``resume`` only what says that there is a run.

        Raises :class:`ConfigError` where something else is at the URL.
        """
        keys = [key for key in list_keys(self._store, "") if key != LEASE_KEY]
        ours = {key for key in keys if _OURS.fullmatch(key)}
        if keys and CONFIG not in ours:
            raise ConfigError(f"{self.url} is not empty and holds no run: choose another --out")
        if not resume:
            self.bring(ours & {CONFIG})
            return
        self._left_out = _half_copied(ours)
        for step in sorted({key.rpartition("/")[0] for key in self._left_out}):
            log.warning("%s/%s was not wholly copied when its process ended: it is left out", self.url, step)
        self.bring(ours - self._left_out)

    def bring(self, keys: set[str]) -> None:
        """Copy files here; those that are not there are left out."""
        for key in sorted(keys):
            data = read_bytes(self._store, key)
            if data is None:
                continue
            path = self.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            making = path.with_name(f".{path.name}.partial")  # which is no file of a run
            making.write_bytes(data)
            making.rename(path)
            self._copied[key] = _Version.of(path)

    def publish(self) -> None:
        """Copy to the URL what changed here since, and remove the checkpoints there that are gone here.

        Raises :class:`KDCacheError` where it is another's by now, and :class:`StorageError` where the store
        is away for too long; the folder here is kept then.
        """
        if self._hold is None:
            return
        with self._kept_is_said():
            found = self._files()
            for key in sorted((key for key in found if self._copied.get(key) != found[key]), key=_place):
                self._hold.check()
                write_from_file(self._store, key, self.folder / key)
                self._copied[key] = found[key]
            gone = {key for key in self._copied.keys() - found if key.startswith("checkpoints/")}
            # Another checkpoint is whole there by now.
            gone |= self._left_out - found.keys()
            for key in sorted(gone, key=_place, reverse=True):
                self._hold.check()
                delete_object(self._store, key)
                self._copied.pop(key, None)
            self._left_out = set()

    @contextmanager
    def _kept_is_said(self) -> Iterator[None]:
        """Name the folder here where what is in it could not be copied."""
        try:
            yield
        except KDCacheError as error:
            kept = (
                f"{error}; the run is whole in {self.folder}: go on there with --out {self.folder} --resume, "
                f"or from the last checkpoint that {self.url} has"
            )
            raise (StorageError if isinstance(error, StorageError) else KDCacheError)(kept) from error

    def close(self) -> None:
        """Remove the folder here, unless it has something that is nowhere else."""
        files = self._files()
        if self._hold is None:
            files = {key: version for key, version in files.items() if key.startswith("render-drift/")}
        is_copied = all(self._copied.get(key) == version for key, version in files.items())
        leave(self.url, keep=not is_copied)

    def _files(self) -> dict[str, _Version]:
        paths = {
            path.relative_to(self.folder).as_posix(): path
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        return {key: _Version.of(path) for key, path in paths.items() if _OURS.fullmatch(key)}


def _place(key: str) -> tuple[int, bool, str]:
    """When a file is copied; checksums come after the other files of their checkpoint."""
    kind = next((place for place, pattern in enumerate(_ORDER) if pattern.match(key)), len(_ORDER))
    return kind, key.endswith(CHECKSUMS), key


def _half_copied(keys: set[str]) -> set[str]:
    """Files of checkpoints that were being copied, or removed, when their process died.

    An older release wrote no checksums at all: where none are there but a run that was copied as a whole,
    its checkpoints are left to whoever judges those of a disk.
    """
    of_steps = {key: found[1] for key in keys if (found := _STEP.match(key))}
    whole = {step for key, step in of_steps.items() if key == f"{step}/{CHECKSUMS}"}
    if not whole and LAST in keys:
        return set()
    return {key for key, step in of_steps.items() if step not in whole}


def at_hand(run: str | os.PathLike[str], files: set[str], stack: ExitStack) -> Path:
    """The folder of a run that is only read, until the stack ends; ``files``: those that are needed of it."""
    location = str(run_location(run, "run"))
    if is_remote(location):
        remote = RemoteRun(location)
        stack.callback(remote.close)
        remote.bring({CONFIG, *files})
    return run_path(location)
