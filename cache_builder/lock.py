"""One builder at a time on one output: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache_builder.format.errors import ConfigError


@contextmanager
def claimed(out: str) -> Iterator[None]:
    """This process alone builds ``out`` within the block; :class:`ConfigError` where another one does.

    A local output is locked by a file beside it, which goes away afterwards. Object stores have no such
    lock: two builders there must be kept apart by whoever starts them.
    """
    if "://" in out:
        yield
        return
    path = lock_path(Path(out).absolute())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path, out)
    try:
        yield
    finally:
        # Before the lock is given up: who opens the file from now on opens a new one.
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def lock_path(root: Path) -> Path:
    """Beside the store, which gets its name only once it is whole; in it where the folder is not ours."""
    beside = root.with_name(f".{root.name}-lock")
    return root / ".lock" if root.is_dir() and not os.access(root.parent, os.W_OK) else beside


def _locked(path: Path, out: str) -> int:
    """A descriptor that holds the lock on the file that has the name now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # A record lock: loader workers, which are forked, do not keep it when this process is killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{out} is being built by {holder}: wait for it or stop it, or choose another --out"
            ) from error
        if _is_named(descriptor, path):
            with suppress(OSError):  # a courtesy: on a full disk the lock holds without a word in it
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to this file: its last holder may just have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
