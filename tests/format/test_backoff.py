"""How long until the next try."""

from __future__ import annotations

from cache_builder.format.backoff import FIRST_DELAY_S, LONGEST_DELAY_S, Backoff


def test_delays_double_to_a_limit_with_jitter() -> None:
    backoff = Backoff(1000)
    delays = [backoff.failed() for _ in range(12)]
    longest = [min(FIRST_DELAY_S * 2**n, LONGEST_DELAY_S) for n in range(12)]
    assert all(0.5 * top <= delay <= top for delay, top in zip(delays, longest, strict=True) if delay)
    assert None not in delays


def test_without_patience_nothing_is_tried_again() -> None:
    backoff = Backoff(0)
    assert not backoff.is_waiting
    assert backoff.failed() is None
    assert backoff.is_waiting


def test_what_the_other_side_asks_for_is_kept_within_patience() -> None:
    assert 30 < (Backoff(100).failed(30) or 0) < 31
    assert (Backoff(5).failed(30) or 0) <= 5
