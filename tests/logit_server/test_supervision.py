from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from cache_builder.format import ServerError
from logit_server.pulse import Pulse
from logit_server.supervision import CAUSES, Supervisor, cause_of, delay_after
from tests.logit_server import workers
from tests.logit_server.processes import Started, started


def stop() -> None:
    """What a service manager sends."""
    os.kill(os.getpid(), signal.SIGTERM)


def causes_until(count: int, work: Callable[[Pulse], None], *, silence_s: float = 30) -> list[str]:
    """What ended the workers of a supervisor that is stopped after so many ends."""
    causes: list[str] = []

    def ended(cause: str) -> None:
        causes.append(cause)
        if len(causes) == count:
            stop()

    Supervisor(work, 1, silence_s=silence_s, drain_s=0, on_end=ended).run()
    return causes


@pytest.fixture(autouse=True)
def heard() -> None:
    """The server's log goes where pytest sees it, whatever a server of another test configured."""
    logging.getLogger("logit_server").propagate = True


def test_a_worker_that_ends_is_replaced_and_its_exit_status_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert causes_until(2, workers.end) == ["exit", "exit"]
    assert "ended with exit status 7" in caplog.text


def test_a_worker_without_a_sign_of_life_is_killed_and_said_to_be_frozen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert causes_until(1, workers.freeze, silence_s=1) == ["frozen"]
    assert "no sign of life for 1 s" in caplog.text


def test_a_worker_that_cannot_start_stops_the_server() -> None:
    causes: list[str] = []
    with pytest.raises(ServerError, match="could not start"):
        Supervisor(workers.refuse, 1, silence_s=30, drain_s=0, on_end=causes.append).run()
    assert causes == []


def test_a_replacement_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    work = functools.partial(workers.refuse_later, tmp_path)
    assert causes_until(3, work) == ["SIGSEGV", "exit", "exit"]


def test_workers_that_do_not_end_in_their_time_are_killed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logit_server.supervision._DRAIN_MARGIN_S", 1.0)
    ready: list[int] = []

    class Watched(Supervisor):
        def _look(self, now: float) -> None:
            super()._look(now)
            if self._was_ready and not ready:
                ready.append(1)
                stop()

    Watched(workers.freeze, 1, silence_s=30, drain_s=0).run()
    assert "did not end in its time: killed" in caplog.text
    assert not [child for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())]


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    causes_until(1, workers.end)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_quick_deaths_are_answered_with_patience() -> None:
    delays = [delay_after(deaths) for deaths in range(1, 40)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == 30
    assert all(delay > 0 for delay in delays[1:])


@pytest.mark.parametrize(
    ("exit_code", "cause", "said"),
    [
        (0, "exit", "exit status 0"),
        (3, "exit", "exit status 3"),
        (-signal.SIGKILL, "SIGKILL", "memory"),
        (-signal.SIGSEGV, "SIGSEGV", "died of SIGSEGV"),
        (-signal.SIGBUS, "SIGBUS", "disk"),
        (-signal.SIGUSR1, "signal", "SIGUSR1"),
        (-200, "signal", "signal 200"),
    ],
)
def test_every_end_has_a_cause_in_words(exit_code: int, cause: str, said: str) -> None:
    found, description = cause_of(exit_code)
    assert found == cause
    assert found in CAUSES
    assert said in description


def replaced(server: Started, worker: psutil.Process) -> None:
    """Wait until another process has a worker's place."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        now = workers_of(server)
        if len(now) == 2 and worker not in now:
            return
        time.sleep(0.05)
    raise AssertionError("the worker was not replaced")


def workers_of(server: Started) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has just died is none
            if "spawn_main" in str(child.cmdline()):
                found.append(child)
    return found


def test_a_server_survives_killed_and_stopped_workers_and_says_what_happened(cache_path: Path) -> None:
    with started(cache_path, workers=2, worker_silence_s=2) as server:
        assert httpx2.get(f"{server.url}/readyz", timeout=120).status_code == 200
        killed = workers_of(server)[0]
        killed.kill()
        replaced(server, killed)
        stopped = workers_of(server)[0]
        stopped.suspend()
        replaced(server, stopped)
        assert httpx2.get(f"{server.url}/readyz", timeout=120).status_code == 200
        server.process.terminate()
        _, stderr = server.process.communicate(timeout=120)
    assert server.process.returncode == 0
    assert f"worker {killed.pid} died of SIGKILL" in stderr
    assert f"worker {stopped.pid} showed no sign of life" in stderr


def test_a_frozen_worker_does_not_keep_a_server_from_ending(cache_path: Path) -> None:
    with started(cache_path, workers=2, drain_s=1) as server:
        assert httpx2.get(f"{server.url}/readyz", timeout=120).status_code == 200
        workers_of(server)[0].suspend()
        server.process.terminate()
        assert server.process.wait(60) == 0
