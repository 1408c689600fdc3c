"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, go."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from cache_builder.console.ending import Terminated

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Notes the first signal; the second one interrupts at once. Does nothing outside the main thread."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def error(self, message: str) -> KeyboardInterrupt:
        """What to raise once everything is safe."""
        kind = Terminated if self.signal == signal.SIGTERM else KeyboardInterrupt
        return kind(message)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
