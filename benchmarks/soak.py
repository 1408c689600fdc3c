"""Ten minutes of a server under everything that goes wrong: is any record ever wrong, and what breaks?

    python -m benchmarks.soak [--seconds 600]

Two workers serve four caches from a page budget that holds a fifth of one of them. Readers compare every byte
with undisturbed copies of the cache that the answer names, while workers are killed and frozen, a store goes
away and comes back, a cache is extended and replaced, bits flip, the list is read again, and hostile clients
do what they can. Everything is drawn from fixed seeds; what meets what depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from benchmarks.report import write_results
from benchmarks.soak_caches import Scene, prepare
from benchmarks.soak_clients import Reader, Tally, be_hostile, unexpected, watch_health
from benchmarks.soak_faults import Faults

SECONDS = 600
READERS, HOSTILE = 4, 3
OPTIONS = (
    "--workers", "2", "--page-bytes", "4MiB", "--worker-silence-s", "3", "--header-s", "3", "--body-s", "3",
    "--read-s", "3", "--drain-s", "5", "--port", "0", "--max-connections", "64", "--log-format", "json",
)  # fmt: skip
_LAST_S = 10.0
"""At the end nothing goes wrong for so long: by then every cache is to be served again."""


def main(seconds: float = SECONDS) -> int:
    """Run, print and keep the tables; 1 where a record was wrong or something was not mended."""
    with tempfile.TemporaryDirectory() as folder:
        scene = prepare(Path(folder))
        with _serving(scene, Path(folder)) as (base, server):
            memory = [_megabytes(server)]
            tally, faults = _soak(base, scene, server, seconds)
            memory.append(_megabytes(server))
            healed = _healed(base, scene)
        log = (Path(folder) / "server.log").read_text()
    ended = server.returncode
    rows = _lines(seconds, tally, faults, memory, healed, ended, log)
    write_results("soak", "A server under everything that goes wrong", ["what", "count"], rows, _NOTES)
    surprises = unexpected(tally)
    for wrong in (*tally.wrong[:5], *faults.unmended, *map(str, surprises.items())):
        print(wrong, file=sys.stderr)
    return 1 if tally.wrong or faults.unmended or surprises or not healed or ended else 0


_NOTES = f"""
{READERS} readers of up to 512 rows, {HOSTILE} hostile clients, two workers, pages of 4 MiB in all. Every
answer's bytes are compared with an undisturbed copy of the cache that its header names. Answers other than
200 are those that the faults explain: 503 while a store is away or a worker is too busy, 500 while a bit is
flipped, 404, 410 or 422 of a cache whose place another one has; `broken` connections were held by a worker
that was killed or frozen.
"""


@contextmanager
def _serving(scene: Scene, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [
        sys.executable,
        "-m",
        "kdcache",
        "serve",
        *scene.arguments,
        *OPTIONS,
        "--page-dir",
        str(folder),
    ]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        found = re.match(r"(http://[^/]+)/", server.stdout.readline())
        if found is None:
            raise SystemExit((folder / "server.log").read_text())
        _is_ready(found[1], "/readyz", 120)
        try:
            yield found[1], server
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _soak(base: str, scene: Scene, server: subprocess.Popen[str], seconds: float) -> tuple[Tally, Faults]:
    tally, stop, calm = Tally(), threading.Event(), threading.Event()
    faults = Faults(psutil.Process(server.pid), scene)
    threads = [
        *(
            threading.Thread(target=Reader(base, scene, tally, seed).run, args=(stop,))
            for seed in range(READERS)
        ),
        *(threading.Thread(target=be_hostile, args=(base, tally, stop, seed)) for seed in range(HOSTILE)),
        threading.Thread(target=watch_health, args=(base, tally, stop)),
        threading.Thread(target=faults.run, args=(calm,)),
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, 30))
        print(
            f"{seconds - max(0.0, left - 30):.0f} s: {tally.rows:,} rows, {len(tally.wrong)} wrong",
            flush=True,
        )
    calm.set()
    threads[-1].join()
    time.sleep(_LAST_S)
    stop.set()
    for thread in threads:
        thread.join()
    return tally, faults


def _healed(base: str, scene: Scene) -> bool:
    """Whether every cache is served again, and the server says that it is ready."""
    paths = ["/readyz", *(f"/v1/caches/{name}/ready" for name in scene.ids)]
    return all(_is_ready(base, path, 30) for path in paths)


def _lines(
    seconds: float,
    tally: Tally,
    faults: Faults,
    memory: list[float],
    healed: bool,
    ended: int | None,
    log: str,
) -> list[list[object]]:
    by_status: Counter[str] = Counter()
    for (_, status), count in tally.answers.items():
        by_status[status] += count
    times = sorted(tally.seconds) or [0.0]
    return [
        ["seconds", seconds],
        ["requests for records", sum(tally.answers.values())],
        *([f"answers {status}", count] for status, count in sorted(by_status.items())),
        ["records compared byte by byte", tally.rows],
        ["wrong records", len(tally.wrong)],
        *([f"fault: {kind}", count] for kind, count in sorted(faults.done.items())),
        *([f"hostile: {kind}", count] for kind, count in sorted(tally.hostile.items())),
        ["answers that no fault explains", sum(unexpected(tally).values())],
        ["faults that were not mended", len(faults.unmended)],
        ["every cache served at the end", "yes" if healed else "no"],
        ["liveness asked for", sum(tally.health.values())],
        ["liveness without an answer", tally.health["broken"]],
        ["longest wait for liveness, ms", 1e3 * tally.longest_health_s],
        ["median answer, ms", 1e3 * statistics.median(times)],
        ["99th percentile, ms", 1e3 * times[int(0.99 * (len(times) - 1))]],
        ["memory of the workers at the beginning, MB", memory[0]],
        ["memory of the workers at the end, MB", memory[1]],
        ["tracebacks in the log", log.count("Traceback")],
        ["exit status of the server", ended],
    ]


def _megabytes(server: subprocess.Popen[str]) -> float:
    """What its processes hold beyond what they share with others."""
    every = psutil.Process(server.pid).children()
    return float(sum(process.memory_full_info().uss for process in every)) / 1e6


def _status(base: str, path: str) -> int | None:
    """Of a GET; None where nobody answers."""
    split = urlsplit(base)
    connection = http.client.HTTPConnection(split.hostname or "", split.port or 80, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None


def _is_ready(base: str, path: str, seconds: float) -> bool:
    """Whether a path answers 200 within some seconds."""
    until = time.monotonic() + seconds
    while _status(base, path) != 200:
        if time.monotonic() > until:
            return False
        time.sleep(0.3)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    sys.exit(main(parser.parse_args().seconds))
