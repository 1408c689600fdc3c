"""Two replicas behind the proxy of compose.yaml, with its configuration: one may be killed under load."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.caches import synthetic_logits, write_synthetic_cache
from tests.docker.test_docker import DOCKER

pytestmark = pytest.mark.timeout(900)
ROWS = 400
PATIENCE_S = 300.0
"""For what takes seconds where nothing else runs."""
CONFIG = DOCKER / "proxy" / "Caddyfile"
CADDY = Path(sys.executable).with_name("caddy")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def process(*words: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        words, env=variables, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def replica(stack: ExitStack, cache: Path, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A server of its own, as each replica of compose.yaml is."""
    folder.mkdir()
    words = [
        Path(sys.executable).with_name("kdcache"),
        "serve",
        cache,
        "--port",
        str(port),
        "--page-dir",
        folder,
    ]
    # As in a container: any numeric address is its own.
    allowed = {"KDCACHE_ALLOW_ROOT": "true", "KDCACHE_ALLOW_ANONYMOUS": "true", "OMP_NUM_THREADS": "1"}
    return stack.enter_context(process(*map(str, words), **allowed))


def answers(url: str, deadline: float) -> None:
    last: object = "nothing yet"
    while time.monotonic() < deadline:
        try:
            last = httpx2.get(url, timeout=PATIENCE_S).status_code
        except httpx2.TransportError as error:
            last = repr(error)
        if last == 200:
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer: {last}")


def test_the_configuration_is_valid_and_formatted() -> None:
    for words in (["validate", "--adapter", "caddyfile", "--config", CONFIG], ["fmt", "--diff", CONFIG]):
        checked = subprocess.run([CADDY, *words], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write_synthetic_cache(tmp_path / "served.zarr", synthetic_logits(2, ROWS, 40))
    return tmp_path / "served.zarr"


def test_a_replica_that_is_killed_under_load_costs_no_request_and_no_byte(
    cache: Path, tmp_path: Path
) -> None:
    ports, port = [free_port(), free_port()], free_port()
    with ExitStack() as stack:
        replicas = [replica(stack, cache, of, tmp_path / f"pages-{of}") for of in ports]
        deadline = time.monotonic() + PATIENCE_S
        for of in ports:
            answers(f"http://127.0.0.1:{of}/readyz", deadline)
        upstreams = " ".join(f"127.0.0.1:{of}" for of in ports)
        stack.enter_context(
            process(
                CADDY, "run", "--adapter", "caddyfile", "--config", CONFIG,
                PROXY_PORT=str(port), REPLICAS=upstreams, HEALTH_INTERVAL="1s", HOME=str(tmp_path),
            )
        )  # fmt: skip
        base = f"http://127.0.0.1:{port}/v1/caches/synthetic"
        answers(f"http://127.0.0.1:{port}/readyz", deadline)
        expected = [httpx2.get(f"{base}/views/{view}/records", timeout=PATIENCE_S).content for view in (0, 1)]
        record_bytes = len(expected[0]) // ROWS
        wrong: list[object] = []
        counts = [0] * 4
        stop = threading.Event()

        def ask(number: int) -> None:
            random = np.random.default_rng(number)
            with httpx2.Client(timeout=PATIENCE_S) as client:
                while not stop.is_set():
                    view, rows = int(random.integers(2)), random.integers(ROWS, size=64)
                    body = {"rows": rows.tolist()}
                    answer = client.post(f"{base}/records?view={view}", json=body)
                    whole = np.frombuffer(expected[view], np.uint8).reshape(ROWS, record_bytes)
                    if answer.status_code != 200 or answer.content != whole[rows].tobytes():
                        wrong.append((answer.status_code, answer.text[:200]))
                    counts[number] += 1

        def after(more: int) -> None:
            """Wait until every client has had so many answers more."""
            wanted = [count + more for count in counts]
            until = time.monotonic() + PATIENCE_S
            while any(have < want for have, want in zip(counts, wanted, strict=True)) and not wrong:
                assert time.monotonic() < until
                time.sleep(0.02)

        clients = [threading.Thread(target=ask, args=(number,)) for number in range(len(counts))]
        for client in clients:
            client.start()
        try:
            after(20)
            replicas[0].send_signal(signal.SIGKILL)
            after(50)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert not wrong
        # It comes back, the other one goes: the first alone answers then.
        shutil.rmtree(tmp_path / f"pages-{ports[0]}")
        replica(stack, cache, ports[0], tmp_path / f"pages-{ports[0]}")
        answers(f"http://127.0.0.1:{ports[0]}/readyz", time.monotonic() + PATIENCE_S)
        replicas[1].send_signal(signal.SIGKILL)
        assert httpx2.get(f"{base}/views/0/records", timeout=PATIENCE_S).content == expected[0]
