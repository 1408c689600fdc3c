from __future__ import annotations

import pytest

from logit_server import errors
from logit_server.board import Board
from logit_server.counters import Counters
from logit_server.errors import STATUSES, OverloadedError
from logit_server.refusal_reasons import REASONS, reason_of
from logit_server.refusals import Refusals


def test_every_refusal_has_a_reason_and_answers_have_none() -> None:
    refused = {400, 401, 403, 408, 413, 414, 421, 429, 431}
    for kind, status in STATUSES.items():
        made = Exception.__new__(kind)
        if kind is OverloadedError:
            made = kind("full", "bodies")
        reason = reason_of(made)
        assert (reason is not None) == (status in refused or issubclass(kind, OverloadedError)), kind
        assert reason is None or reason in REASONS


def test_reasons_are_different() -> None:
    assert len(set(REASONS)) == len(REASONS)


@pytest.mark.parametrize("kind", OverloadedError.KINDS)
def test_an_overload_says_of_what(kind: str) -> None:
    assert reason_of(OverloadedError("full", kind)) == kind


def test_refusals_are_counted_and_errors_that_answer_are_not() -> None:
    board = Board([])
    refusals = Refusals(Counters(board))
    refusals.of(errors.HostError("no"), "id", "203.0.113.1")
    refusals.of(errors.UnknownCacheError("no"), "id", "203.0.113.1")
    refusals.before_routes(errors.SlowClientError("no"), "id", "203.0.113.1")
    totals = board.totals()
    assert totals["refused", "host"] == totals["refused", "slow_client"] == 1
    assert sum(count for key, count in totals.items() if key[0] == "refused") == 2
    assert totals["requests", "unmatched", "408"] == 1
