"""What happens to a server in the soak: its workers, its stores and its list."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]

from benchmarks.soak_caches import BITTEN, GROWS, LEAVES, Scene, put_in_place

_PAUSE_S = (1.0, 4.0)
_AWAY_S = 4.0
_FROZEN_S = 80.0
"""A worker that is frozen in its imports is given a minute, since a busy machine may need that for them."""


class Faults:
    """Does one after another, until told to stop; everything is mended at the end."""

    def __init__(self, server: psutil.Process, scene: Scene, seed: int = 0) -> None:
        self._server, self._scene = server, scene
        self._rng = random.Random(seed)
        self._grown = False
        self.done: Counter[str] = Counter()
        """By kind."""
        self.unmended: list[str] = []
        """What the server did not put right."""

    def run(self, stop: threading.Event) -> None:
        """Faults with a few seconds between them."""
        kinds: tuple[Callable[[], None], ...] = (
            self._kill, self._freeze, self._store_leaves, self._store_grows, self._bit_flips, self._reload,
        )  # fmt: skip
        while not stop.wait(self._rng.uniform(*_PAUSE_S)):
            kind = self._rng.choice(kinds)
            kind()
            self.done[kind.__name__.strip("_").replace("_", " ")] += 1
        if self._grown:
            put_in_place(self._scene, GROWS, GROWS)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        children = self._server.children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def _kill(self) -> None:
        self._rng.choice(self.workers()).send_signal(signal.SIGKILL)

    def _freeze(self) -> None:
        worker = self._rng.choice(self.workers())
        worker.send_signal(signal.SIGSTOP)
        until = time.monotonic() + _FROZEN_S
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                worker.send_signal(signal.SIGCONT)
                self.unmended.append(f"a worker was frozen for {_FROZEN_S:g} s and nobody replaced it")
                return
            time.sleep(0.2)

    def _store_leaves(self) -> None:
        disk = self._scene.path(LEAVES).parent
        away = disk.with_name("disk.away")
        disk.rename(away)
        time.sleep(_AWAY_S)
        away.rename(disk)

    def _store_grows(self) -> None:
        self._grown = not self._grown
        put_in_place(self._scene, GROWS, "grown" if self._grown else GROWS)

    def _bit_flips(self) -> None:
        stored = (self._scene.path(BITTEN) / "records").rglob("c/**/*")
        shard = self._rng.choice([path for path in sorted(stored) if path.is_file()])
        whole = shard.read_bytes()
        place = self._rng.randrange(len(whole))
        with shard.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 1 << self._rng.randrange(8)]))
        time.sleep(_AWAY_S)
        with shard.open("r+b") as file:
            file.seek(place)
            file.write(whole[place : place + 1])

    def _reload(self) -> None:
        self._server.send_signal(signal.SIGHUP)
