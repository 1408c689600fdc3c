"""A run that lies on an object store: it is trained in a folder of this machine, which is copied there.

What is on the store counts: ``--resume`` begins with its files, on whatever machine. Every process has a
folder of its own, and the main one copies what changed after each checkpoint, so that the machines of a run
need share nothing else. A checkpoint counts once its checksums are there, which come last and go first.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from cache_builder.format.errors import ConfigError, StorageError
from cache_builder.format.locations import is_remote, local_output
from cache_builder.format.locks.lock import Hold
from cache_builder.format.owned import LEASE_KEY
from cache_builder.format.store import delete_object, list_keys, open_store, read_bytes, write_from_file

CONFIG, CHECKSUMS = "config.json", "checksums.json"
_STEP = re.compile(r"checkpoints/step-\d+")
_OURS = re.compile(
    r"config\.json|metrics\.jsonl|(best|last)\.safetensors|report\.md|curves\.png"
    r"|(tensorboard|render-drift)/[^/]+|checkpoints/(damaged-\d+-)?step-\d+/[\w.]+"
)
"""The files of a run. Nothing else that lies at its URL is read, written or removed."""


class _Version(NamedTuple):
    """What changes where a file does."""

    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Version:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def run_location(given: object) -> object:
    """``--out`` as text: a local path, or the URL of a folder on an object store.

    Raises :class:`ConfigError` for a URL that names a whole bucket, and for what is no place to write to.
    """
    if not isinstance(given, str | os.PathLike):
        return given
    text = os.fspath(given)
    if not isinstance(text, str) or not is_remote(text):
        return str(local_output(text if isinstance(text, str) else os.fsdecode(text)))
    if not text.rstrip("/").partition("://")[2].partition("/")[2]:
        raise ConfigError(
            f"--out {text} is a whole bucket: name a folder in it, as in {text.rstrip('/')}/run"
        )
    return text.rstrip("/")


def run_path(out: str) -> Path:
    """Where the files of a run are at hand: ``out`` itself, or this process's folder for a URL."""
    return _scratch(out) if is_remote(out) else Path(out)


_SCRATCH: dict[str, Path] = {}
"""The folder of each run that is open in this process, by its URL."""


def _scratch(url: str) -> Path:
    if url not in _SCRATCH:
        _SCRATCH[url] = Path(tempfile.mkdtemp(prefix="kdtrain-"))
    return _SCRATCH[url]


class RemoteRun:
    """The files of a run at a URL, and the folder of this process that they are copied from and to."""

    def __init__(self, url: str, hold: Hold | None = None) -> None:
        """``hold``: the right to write there; None in processes that only read."""
        self.url = url
        self.folder = run_path(url)
        self._hold = hold
        self._store = open_store(url, read_only=hold is None)
        self._copied: dict[str, _Version] = {}

    def fetch(self, resume: bool) -> None:
        """Bring the run's files here; without ``resume`` only what says that there is a run.

        Raises :class:`ConfigError` where something else is at the URL.
        """
        keys = [key for key in list_keys(self._store, "") if key != LEASE_KEY]
        ours = {key for key in keys if _OURS.fullmatch(key)}
        if keys and CONFIG not in ours:
            raise ConfigError(f"{self.url} is not empty and holds no run: choose another --out")
        self.bring(_whole(ours) if resume else ours & {CONFIG})

    def bring(self, keys: set[str]) -> None:
        """Copy files here; those that are not there are left out."""
        for key in sorted(keys):
            data = read_bytes(self._store, key)
            if data is not None:
                path = self.folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                self._copied[key] = _Version.of(path)

    def publish(self) -> None:
        """Copy to the URL what changed here since, and remove there what is gone.

        Raises :class:`StorageError` where the store is away for too long; the folder here is kept then.
        """
        if self._hold is None:
            return
        self._hold.check()
        found = self._files()
        try:
            for key in sorted((key for key in found if self._copied.get(key) != found[key]), key=_last):
                write_from_file(self._store, key, self.folder / key)
                self._copied[key] = found[key]
            for key in sorted(self._copied.keys() - found, key=_last, reverse=True):
                delete_object(self._store, key)
                del self._copied[key]
        except StorageError as error:
            raise StorageError(
                f"{error}; the run is whole in {self.folder}: copy that to {self.url}, go on there with "
                f"--out {self.folder} --resume, or go on from the last checkpoint that {self.url} has"
            ) from error

    def close(self) -> None:
        """Remove the folder here, unless it has something that is nowhere else."""
        _SCRATCH.pop(self.url, None)
        if all(self._copied.get(key) == version for key, version in self._files().items()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> dict[str, _Version]:
        paths = {
            path.relative_to(self.folder).as_posix(): path
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        return {key: _Version.of(path) for key, path in paths.items() if _OURS.fullmatch(key)}


def _last(key: str) -> tuple[bool, bool, str]:
    """Checkpoints come before what stands beside them, and their checksums after their other files."""
    return not key.startswith("checkpoints/"), key.endswith(CHECKSUMS), key


def _whole(keys: set[str]) -> set[str]:
    """Without the files of checkpoints that were being copied, or removed, when their process died."""
    return {key for key in keys if (step := _STEP.match(key)) is None or f"{step[0]}/{CHECKSUMS}" in keys}


def at_hand(run: Path | str, files: set[str], stack: ExitStack) -> Path:
    """The folder of a run that is only read, until the stack ends; ``files``: those that are needed of it."""
    location = str(run_location(run))
    if is_remote(location):
        remote = RemoteRun(location)
        stack.callback(remote.close)
        remote.bring({CONFIG, *files})
    return run_path(location)
