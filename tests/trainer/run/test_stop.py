from __future__ import annotations

import os
import signal
import threading

import pytest

from cache_builder.console.ending import Terminated
from trainer.run.stop import StopRequest


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_the_first_signal_is_noted(number, kind):
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert type(stop.error("why")) is kind
        assert str(stop.error("why")) == "why"


def test_the_second_one_interrupts_at_once():
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def use():
        with StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop()))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
