"""Clients of the soak: those that read records and compare every byte, and those that mean harm."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from benchmarks.soak_caches import LEAVES, NAMES, Scene
from cache_builder.format.codecs.record import Part
from cache_builder.format.wire import ID_HEADER, RECORDS, ROWS, cache_path

_MOST_ROWS = 512
_PATIENCE_S = 20.0


@dataclass
class Tally:
    """What the clients saw, added up by all of them."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers by cache and status; ``broken`` for a connection that ended."""
    rows: int = 0
    """Records compared byte by byte."""
    wrong: list[str] = field(default_factory=list)
    """Records that were not those of the cache_id on the answer."""
    seconds: list[float] = field(default_factory=list)
    """Of answers with records."""
    hostile: Counter[str] = field(default_factory=Counter)
    """Connections of those that mean harm, by kind."""
    longest_health_s: float = 0.0
    health: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Reader:
    """One trainer: rows of any view of any cache, by name or by the cache_id that it began with."""

    def __init__(self, base: str, scene: Scene, tally: Tally, seed: int) -> None:
        split = urlsplit(base)
        self._host, self._port = split.hostname or "", split.port or 80
        self._scene, self._tally = scene, tally
        self._rng = random.Random(seed)
        self._connection: http.client.HTTPConnection | None = None

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            name = self._rng.choice(NAMES)
            try:
                self._ask(name)
            except (OSError, http.client.HTTPException):
                self._count(name, "broken")
                self._close()
                time.sleep(0.1)

    def _ask(self, name: str) -> None:
        """One request; what comes back is compared."""
        ids = self._scene.ids[name]
        wanted = self._rng.choice([name, name, *ids])
        truth = self._scene.truths[wanted if wanted in ids else ids[0]]
        view, part = self._rng.randrange(truth.views), self._rng.choice(truth.parts)
        rows = np.array([self._rng.randrange(truth.rows) for _ in range(self._rng.randrange(1, _MOST_ROWS))])
        target = f"{cache_path(wanted)}/records?view={view}&part={part}"
        begun = time.monotonic()
        status, header, body = self._answer(target, rows.astype("<u4").tobytes())
        self._count(name, str(status))
        if status != 200:
            if status == 503:
                time.sleep(0.05)
            return
        found = header or ""
        known = self._scene.truths.get(found)
        is_right = known is not None and body == known.records[view, Part(part)][rows].tobytes()
        if wanted in self._scene.truths and found != wanted:
            is_right = False
        with self._tally.lock:
            self._tally.rows += len(rows)
            self._tally.seconds.append(time.monotonic() - begun)
            if not is_right:
                self._tally.wrong.append(f"{name} as {wanted}: view {view}, {part}, answered by {found!r}")

    def _answer(self, target: str, body: bytes) -> tuple[int, str | None, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_S)
        self._connection.request("POST", target, body, {"Content-Type": ROWS, "Accept": RECORDS})
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.will_close:
            self._close()
        return answer.status, answer.getheader(ID_HEADER), found

    def _count(self, name: str, what: str) -> None:
        with self._tally.lock:
            self._tally.answers[name, what] += 1

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def watch_health(base: str, tally: Tally, stop: threading.Event) -> None:
    """Ask for liveness twice a second, each time by a new connection."""
    split = urlsplit(base)
    while not stop.wait(0.5):
        begun = time.monotonic()
        connection = http.client.HTTPConnection(split.hostname or "", split.port or 80, timeout=_PATIENCE_S)
        try:
            connection.request("GET", "/livez")
            said = str(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            said = "broken"
        finally:
            connection.close()
        with tally.lock:
            tally.health[said] += 1
            tally.longest_health_s = max(tally.longest_health_s, time.monotonic() - begun)


def _slow_header(peer: socket.socket) -> None:
    for piece in (b"POST /v1/caches/steady/records HTTP/1.1\r\n", b"Host: localhost\r\n", b"X-A: b\r\n") * 4:
        peer.sendall(piece)
        time.sleep(1)


def _slow_body(peer: socket.socket) -> None:
    peer.sendall(_POST % (ROWS.encode(), 4096))
    for _ in range(8):
        peer.sendall(b"\0\0\0\0")
        time.sleep(1)


def _reads_nothing(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for view in range(4):
        peer.sendall(b"GET /v1/caches/steady/views/%d/records HTTP/1.1\r\nHost: localhost\r\n\r\n" % view)
    time.sleep(8)


def _garbage(peer: socket.socket) -> None:
    peer.sendall(random.randbytes(2000))
    peer.recv(4096)


def _large_header(peer: socket.socket) -> None:
    peer.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 2**20)
    peer.recv(4096)


def _many_keys(peer: socket.socket) -> None:
    body = b'{"' + b'a":1,"'.join(b"%d" % number for number in range(200_000)) + b'":1}'
    peer.sendall(_POST % (b"application/json", len(body)) + body)
    peer.recv(4096)


def _deep_json(peer: socket.socket) -> None:
    body = b'{"rows":' + b"[" * 500_000
    peer.sendall(_POST % (b"application/json", len(body)) + body)
    peer.recv(4096)


def _rows_out_of_range(peer: socket.socket) -> None:
    peer.sendall(_POST % (ROWS.encode(), 4096) + b"\xff" * 4096)
    peer.recv(4096)


def _gone_at_once(peer: socket.socket) -> None:
    peer.sendall(_POST % (ROWS.encode(), 400) + b"\0" * 400)


_POST = (
    b"POST /v1/caches/steady/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
    b"Content-Length: %d\r\n\r\n"
)
HOSTILE: tuple[Callable[[socket.socket], None], ...] = (
    _slow_header, _slow_body, _reads_nothing, _garbage, _large_header, _many_keys, _deep_json,
    _rows_out_of_range, _gone_at_once,
)  # fmt: skip


def be_hostile(base: str, tally: Tally, stop: threading.Event, seed: int) -> None:
    """One connection after another that means harm."""
    rng, split = random.Random(seed), urlsplit(base)
    while not stop.is_set():
        attack = rng.choice(HOSTILE)
        with contextlib.suppress(OSError), _connected(split.hostname or "", split.port or 80) as peer:
            attack(peer)
        with tally.lock:
            tally.hostile[attack.__name__.strip("_").replace("_", " ")] += 1
        time.sleep(0.2)


@contextlib.contextmanager
def _connected(host: str, port: int) -> Iterator[socket.socket]:
    with socket.create_connection((host, port), timeout=_PATIENCE_S) as peer:
        yield peer


def unexpected(tally: Tally) -> dict[tuple[str, str], int]:
    """Answers that no fault explains: damage of a whole cache, unknown caches, refused requests."""
    explained = {"200", "broken", "503", "429"}
    by_cache = {"grows": {"410", "404", "422"}, LEAVES: {"404"}, "bitten": {"500"}}
    return {
        key: count
        for key, count in tally.answers.items()
        if key[1] not in explained | by_cache.get(key[0], set())
    }
