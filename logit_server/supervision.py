"""Workers in processes of their own: started, watched, replaced when they die or freeze, and stopped.

uvicorn's supervisor asks a thread of each worker for a sign of life, which answers while the event loop is
stuck; it waits for one worker at a time, says of none why it died, starts one that dies at once again and
again, and waits for ever for a frozen one when the server stops.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from uvicorn.config import STARTUP_FAILURE

from cache_builder.format import ServerError
from logit_server.log import tell
from logit_server.pulse import Pulse, pulses

FROZEN = "frozen"
EXITED = "exit"
OTHER_SIGNAL = "signal"
CAUSES = (FROZEN, EXITED, "SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "SIGTERM", "SIGINT", OTHER_SIGNAL)
"""What ends a worker, as it is counted."""

_TICK_S = 0.25
"""Seconds between two looks at the workers; a death is noticed at once."""
_FIRST_BEAT_S = 60.0
"""Seconds that a new process has for its imports; a busy machine takes many times what an idle one does."""
_STEADY_S = 60.0
"""A worker that lived for so long is replaced without delay."""
_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0
_TRACEBACK_S = 1.0
"""Seconds that a frozen worker has to write where it stands."""
_DRAIN_MARGIN_S = 5.0
"""Seconds beside those of the drain that a worker has to end, before it is killed."""
_MEANINGS = {
    "SIGKILL": "somebody killed it, or the system did because memory ran out",
    "SIGSEGV": "a fault in native code",
    "SIGBUS": "its mapped memory could not be read or written: is a disk full?",
}


@dataclass
class _Worker:
    """The place of a worker, whatever process has it."""

    pulse: Pulse
    process: BaseProcess | None = None
    started_at: float = 0.0
    heard_at: float = 0.0
    beats: int = 0
    quick_deaths: int = 0
    due: float = field(default=0.0)
    """When its next process is started, by the monotonic clock."""


class Supervisor:
    """Runs ``work`` in some processes until SIGTERM or SIGINT comes.

    ``silence_s``: seconds without a sign of life of its event loop after which a worker is replaced;
    ``drain_s``: seconds that workers have to end; ``on_end`` is told which worker ended, and of which of
    ``CAUSES``, ``before_stop`` is called before the workers are stopped; ``forwarded``: signals that workers
    get too.
    """

    def __init__(
        self,
        work: Callable[[Pulse], None],
        workers: int,
        *,
        silence_s: float,
        drain_s: float,
        on_end: Callable[[int, str], None] = lambda slot, cause: None,
        before_stop: Callable[[], None] = lambda: None,
        forwarded: tuple[int, ...] = (),
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._work = work
        self._workers = [_Worker(pulse) for pulse in pulses(self._context, workers)]
        self._silence_s = silence_s
        self._drain_s = drain_s
        self._on_end = on_end
        self._before_stop = before_stop
        self._forwarded = forwarded
        self._is_stopping = False
        self._was_ready = False
        self._looked_at = 0.0

    def run(self) -> None:
        """Keep the workers running until told to stop.

        Raises :class:`ServerError` where a worker refuses to start before any has been ready.
        """
        with self._handling_signals():
            try:
                while not self._is_stopping:
                    self._look(time.monotonic())
                    self._wait(_TICK_S)
            finally:
                self._stop()

    def pass_on(self, number: int) -> None:
        """Send a signal to every worker that is ready for it."""
        for worker in self._workers:
            if worker.process is not None and worker.pulse.is_ready:
                _send(worker.process, number)

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._is_stopping = True

        def forward(number: int, _frame: FrameType | None) -> None:
            self.pass_on(number)

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, **dict.fromkeys(self._forwarded, forward)}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _wait(self, seconds: float) -> None:
        """Until a worker dies, at most for some seconds."""
        alive = [worker.process.sentinel for worker in self._workers if worker.process is not None]
        if alive:
            wait(alive, seconds)
        else:
            time.sleep(seconds)

    def _look(self, now: float) -> None:
        was_away = now - self._looked_at > self._silence_s / 2
        self._looked_at = now
        for worker in self._workers:
            if worker.process is None:
                if now >= worker.due:
                    self._start(worker, now)
                continue
            self._was_ready |= worker.pulse.is_ready
            if worker.process.exitcode is not None:
                self._died(worker, worker.process, now)
            elif worker.pulse.beats != worker.beats or was_away:
                # Whoever stops this process for a while stops the workers too, as Ctrl-Z does.
                worker.beats, worker.heard_at = worker.pulse.beats, now
            elif now - worker.heard_at > (self._silence_s if worker.beats else _FIRST_BEAT_S):
                self._froze(worker, worker.process, now)

    def _start(self, worker: _Worker, now: float) -> None:
        worker.pulse.reset()
        worker.beats, worker.started_at, worker.heard_at = 0, now, now
        worker.process = self._context.Process(
            target=_run, args=(self._work, worker.pulse), name=f"kdcache-worker-{worker.pulse.slot}"
        )
        worker.process.start()

    def _died(self, worker: _Worker, process: BaseProcess, now: float) -> None:
        cause, description = cause_of(process.exitcode or 0)
        if process.exitcode == STARTUP_FAILURE and not self._was_ready:
            # Another one would fail alike.
            raise ServerError("a worker could not start; what it said is above")
        self._replace(worker, process, now, cause, description)

    def _froze(self, worker: _Worker, process: BaseProcess, now: float) -> None:
        silence_s = now - worker.heard_at
        _send(process, signal.SIGUSR2)
        process.join(_TRACEBACK_S)
        process.kill()
        process.join(_DRAIN_MARGIN_S)
        self._replace(worker, process, now, FROZEN, f"showed no sign of life for {silence_s:.0f} s: killed")

    def _replace(
        self, worker: _Worker, process: BaseProcess, now: float, cause: str, description: str
    ) -> None:
        lived_s = now - worker.started_at
        worker.quick_deaths = 0 if lived_s > _STEADY_S else worker.quick_deaths + 1
        delay_s = delay_after(worker.quick_deaths)
        worker.process, worker.due = None, now + delay_s
        when = f"in {delay_s:g} s" if delay_s else "now"
        tell(
            logging.ERROR, "worker_ended", "worker %s %s, after %.0f s; another one is started %s",
            process.pid, description, lived_s, when,
            worker=process.pid, cause=cause, lived=round(lived_s, 1), delay=delay_s,
        )  # fmt: skip
        self._on_end(worker.pulse.slot, cause)

    def _stop(self) -> None:
        self._before_stop()
        left = [worker.process for worker in self._workers if worker.process is not None]
        for process in left:
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + self._drain_s + _DRAIN_MARGIN_S
        for process in left:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in left:
            if process.exitcode is None:
                text = "worker %s did not end in its time: killed"
                tell(logging.ERROR, "worker_killed", text, process.pid, worker=process.pid)
                process.kill()
                process.join(_DRAIN_MARGIN_S)


def cause_of(exit_code: int) -> tuple[str, str]:
    """What ended a process: one of ``CAUSES``, and in words that follow its name."""
    if exit_code >= 0:
        return EXITED, f"ended with exit status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    meaning = f" ({_MEANINGS[name]})" if name in _MEANINGS else ""
    return name if name in CAUSES else OTHER_SIGNAL, f"died of {name}{meaning}"


def delay_after(quick_deaths: int) -> float:
    """Seconds until the next try, after so many deaths soon after the start."""
    if quick_deaths < 2:
        return 0.0
    return min(_LONGEST_DELAY_S, _DELAY_S * 2.0 ** min(quick_deaths - 2, 10))


def _send(process: BaseProcess, number: int) -> None:
    if process.exitcode is None and process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _run(work: Callable[[Pulse], None], pulse: Pulse) -> None:
    """What a worker's process does."""
    # Where it stands when it crashes, and when its supervisor finds it frozen.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    # Ctrl-C reaches every process: until the server inside handles it, no traceback is worth reading.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=pulse.beat_until_ready, daemon=True).start()
    work(pulse)
