"""One builder at a time on one output: a lock that ends with the process that holds it, however that ends.

The ``filelock`` library was weighed and left: it locks with ``flock``, which loader workers inherit when they
are forked, so that a killed builder would stay locked out by its own orphans; it names no holder, and it does
not tell that the file it holds was unlinked or its folder unmounted, which ``check`` tells before each write.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.locations import followed, is_remote, local_path
from cache_builder.format.locks.block_leases import living_holder
from cache_builder.format.locks.lease import LEASE_S, HeldError, Lease, LeaseState, read_state
from cache_builder.format.owned import BLOCK_LEASES
from cache_builder.format.store import open_store

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Hold(Protocol):
    """The right to write an output, as long as the block lasts."""

    def check(self) -> None:
        """Raise :class:`KDCacheError` where it was lost: the output is gone, or somebody else's."""

    def ready(self) -> None:
        """Tell the other processes of the launch that they may write."""


_POLL_S = 0.5
_PATIENCE_S = 900.0
"""How long a process of a launch waits for rank 0, which may still be importing, to take the lock."""
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.1
"""Whoever only looks whether a file is locked holds it for a moment too."""
_READY = "ready"
SHARED = "shared"
"""The launch of processes that share an output by leases of row blocks: any of them may begin and seal it."""


@contextmanager
def claimed(out: str | Path, launch: str | None = None, doing: str = "built") -> Iterator[Hold]:
    """This process alone builds ``out`` within the block; :class:`ConfigError` where another one does.

    A local output is locked by a file beside it, one on an object store by a lease in it; both go away
    afterwards. ``launch`` names the processes that build it together with this one. Unless that is
    :data:`SHARED`, an output that others share is refused too.
    """
    if is_remote(out):
        lease = Lease(open_store(out, read_only=False), str(out), launch)
        try:
            _refuse_sharers(out, launch)
            yield lease
        finally:
            lease.release()
        return
    held = LocalHold(out, launch, doing)
    try:
        _refuse_sharers(out, launch)
        yield held
    finally:
        held.release()


def _refuse_sharers(out: str | Path, launch: str | None) -> None:
    """They look for our lock after they took a block, and we for their leases after we took the lock."""
    if launch == SHARED or not (is_remote(out) or (local_path(out) / BLOCK_LEASES).is_dir()):
        return
    holder = living_holder(open_store(out, read_only=True))
    if holder is not None:
        raise ConfigError(
            f"{out} is being built with --share by {holder}, perhaps among others: wait for them or stop "
            "them, join them with --share, or choose another --out"
        )


def lone_holder(out: str | Path) -> str | None:
    """Who builds an output alone now, for people; None where nobody does, or those that share it."""
    if is_remote(out):
        state = read_state(open_store(out, read_only=True))
        if state is None or state.launch == SHARED or state.holder.is_gone:
            return None
        return str(state.holder)
    lines = _lines_of_held(lock_path(followed(local_path(out))))
    return None if lines is None or f"launch {SHARED}" in lines else (lines or [""])[0] or "another process"


def clear(out: str | Path) -> None:
    """Take away the lock of a process that died after its last write: the output is whole, and nobody's.

    Nothing happens where somebody holds it, or where it cannot be taken away.
    """
    if is_remote(out):
        state = read_state(open_store(out, read_only=True))
        if state is None or not state.holder.is_gone:
            return
    elif not lock_path(followed(local_path(out))).exists():
        return
    # As one who shares it: who does so too is to find nobody that builds it alone.
    with suppress(KDCacheError, OSError), claimed(out, SHARED):
        pass


def lock_path(root: Path) -> Path:
    """Beside the store, which gets its name only once it is whole; in it where the folder is not ours."""
    beside = root.with_name(f".{root.name}-lock")
    return root / ".lock" if root.is_dir() and not os.access(root.parent, os.W_OK) else beside


class LocalHold:
    """The lock on the output of a local path, which is held from now on."""

    def __init__(self, out: str | Path, launch: str | None, doing: str) -> None:
        self._out, self._launch = out, launch
        self._path = lock_path(followed(local_path(out)))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _locked(self._path, out, doing)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            raise ConfigError(
                f"{out} has yet to be {doing} as this command says, and nothing can be written to "
                f"{self._path.parent} ({error.strerror}): make it writable, or choose another --out"
            ) from error
        self._write()

    def check(self) -> None:
        """The lock's file is where it was: neither the folder nor the disk it is on went away."""
        if not _is_named(self._descriptor, self._path):
            raise KDCacheError(
                f"{self._out}: {self._path} is gone; was {self._path.parent} removed, renamed or unmounted? "
                "Nothing is written in its place: bring it back and run the same command again, which "
                "continues what is there"
            )

    def ready(self) -> None:
        """Say so in the lock's file."""
        self._write(f"{_READY}\n")

    def _write(self, more: str = "") -> None:
        text = f"process {os.getpid()} on {socket.gethostname()}\n"
        if self._launch is not None:
            text += f"launch {self._launch}\n{more}"
        with suppress(OSError):  # a courtesy: on a full disk the lock holds without a word in it
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Give it back; the file goes away."""
        # Before the lock is given up: who opens the file from now on opens a new one.
        if _is_named(self._descriptor, self._path):
            with suppress(OSError):
                self._path.unlink()
        os.close(self._descriptor)


class JoinedHold:
    """The lock of rank 0, as another process of the same launch sees it."""

    def __init__(self, out: str, launch: str) -> None:
        self._out, self._launch = out, launch
        self._store = open_store(out, read_only=True) if is_remote(out) else None
        self._watched: tuple[LeaseState | None, float] = None, 0.0
        """The lease on an object store, and since when it is as it is."""

    def wait(self, is_finished: Callable[[], bool]) -> None:
        """Until rank 0 says that the store is there and may be written to, or the cache is finished.

        Raises :class:`KDCacheError` where rank 0 ended before, or does not come.
        """
        until, began = time.monotonic() + _PATIENCE_S, False
        while (state := self._state()) != _READY:
            if not state and is_finished():
                return
            if not state and (began or time.monotonic() > until):
                what = "ended" if began else "did not come"
                raise KDCacheError(
                    f"{self._out}: rank 0 of this launch {what} before the cache was begun: see what it said"
                )
            began = began or bool(state)
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise where rank 0 does not hold the lock any more."""
        if self._state() != _READY:
            raise KDCacheError(
                f"{self._out}: rank 0 of this launch has ended, or lost the output; what was committed is "
                "kept and the same command continues"
            )

    def ready(self) -> None:
        """Rank 0 says so."""

    @property
    def is_held(self) -> bool:
        """Whether a process of the launch holds the lock at this moment."""
        return bool(self._state())

    def _state(self) -> str:
        """``ready``, ``preparing``, or nothing where the launch does not hold the lock."""
        if self._store is None:
            return _launch_state(lock_path(followed(local_path(self._out))), self._launch)
        state = read_state(self._store)
        if state is None or state.launch != self._launch or state.holder.is_gone:
            return ""
        if state != self._watched[0]:
            self._watched = state, time.monotonic()
        elif time.monotonic() - self._watched[1] > LEASE_S:
            return ""  # it died on another machine, whose clock may differ from ours
        return _READY if state.is_ready else "preparing"


def _launch_state(path: Path, launch: str) -> str:
    lines = _lines_of_held(path, f"launch {launch}")
    if lines is None:
        return ""
    return _READY if lines[-1] == _READY else "preparing"


def _lines_of_held(path: Path, line: str | None = None) -> list[str] | None:
    """What the holder of a lock's file wrote; None where nobody holds it, or wrote no such ``line``.

    Never call it in the holder, whose own lock would end with the file's descriptor.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        lines = os.pread(descriptor, 1000, 0).decode(errors="replace").splitlines()
        return lines if line in (None, *lines) and _is_held(descriptor) else None
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    return False  # the lock ends with the descriptor


def _locked(path: Path, out: str | Path, doing: str) -> int:
    """A descriptor that holds the lock on the file that has the name now."""
    tries = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        tries += 1
        try:
            # A record lock: loader workers, which are forked, do not keep it when this process is killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            said = os.read(descriptor, 200).decode(errors="replace").partition("\n")[0]
            os.close(descriptor)
            if tries < _LOCK_TRIES:
                time.sleep(_LOCK_PAUSE_S)
                continue
            raise HeldError(
                f"{out} is being {doing} by {said.strip() or 'another process'}: wait for it or stop it, or "
                "choose another --out"
            ) from error
        if _is_named(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to this file: its last holder may just have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
