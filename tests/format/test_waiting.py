"""Waiting for a store that is away."""

from __future__ import annotations

import asyncio
import logging
import uuid

import pytest

from cache_builder.format import ConfigError, StorageError
from cache_builder.format.waiting import (
    PATIENCE_VARIABLE,
    TIMEOUT_VARIABLE,
    patience_at_most,
    patiently,
    store_waiting,
)


class Store:
    """Fails so many times before it answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.root = f"s3://{uuid.uuid4().hex}"
        self.failures, self.tries = failures, 0
        self.error = error or StorageError(f"{self.root}/k cannot be reached: nothing answers")

    async def ask(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise self.error
        return "answer"

    def answer(self) -> str:
        return asyncio.run(patiently(self.root, self.ask))


def test_one_failure_is_passed_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    assert Store(failures=1).answer() == "answer"
    assert not caplog.records


def test_more_are_told_once_and_their_end_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "60")
    store = Store(failures=3)
    with caplog.at_level(logging.WARNING):
        assert store.answer() == "answer"
    began, ended = [record.getMessage() for record in caplog.records]
    assert began == f"{store.error}; trying again for up to 60 s"
    assert ended.startswith(f"{store.root} answers again after")


def test_patience_ends_with_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.3")
    with pytest.raises(StorageError, match=r"nothing answers; tried \d times in 0 s") as caught:
        Store(failures=99).answer()
    assert caught.value.waiting_helps


@pytest.mark.parametrize(
    "error",
    [StorageError("no credentials", waiting_helps=False), FileNotFoundError("k"), FileExistsError("k")],
)
def test_what_no_waiting_mends_is_asked_once(error: Exception) -> None:
    store = Store(failures=99, error=error)
    with pytest.raises(type(error)):
        store.answer()
    assert store.tries == 1


def test_a_caller_who_waits_himself_makes_it_shorter_and_never_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "20")
    with patience_at_most(5):
        assert store_waiting().patience_s == 5
        with patience_at_most(50):
            assert store_waiting().patience_s == 5
    assert store_waiting().patience_s == 20


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        (PATIENCE_VARIABLE, "long"),
        (PATIENCE_VARIABLE, "-1"),
        (TIMEOUT_VARIABLE, "0"),
        (TIMEOUT_VARIABLE, "inf"),
    ],
)
def test_what_is_no_number_of_seconds_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str
) -> None:
    monkeypatch.setenv(variable, given)
    with pytest.raises(ConfigError, match=f"{variable} is"):
        store_waiting()
