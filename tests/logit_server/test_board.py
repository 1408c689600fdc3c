from __future__ import annotations

import multiprocessing

import pytest

from logit_server.board import CONNECTIONS, GAUGES, IN_FLIGHT, LOADS, ROWS, UNMATCHED, Board
from logit_server.counters import Counters


def counted_elsewhere(board: Board, process: int) -> None:
    Counters(board, process).add(ROWS, 5)


def test_processes_write_rows_of_their_own_and_totals_are_sums() -> None:
    board = Board(["/a"], 2)
    Counters(board, 0).add(ROWS, 2)
    spawned = multiprocessing.get_context("spawn").Process(target=counted_elsewhere, args=(board, 1))
    spawned.start()
    spawned.join(120)
    assert spawned.exitcode == 0
    assert board.totals()[ROWS] == 7


def test_the_end_of_a_process_is_counted_and_its_gauges_end_with_it() -> None:
    board = Board([], 2)
    for process in range(2):
        counters = Counters(board, process)
        counters.add(LOADS)
        counters.put(IN_FLIGHT, 3)
        counters.put(CONNECTIONS, 4)
    board.end(0, "frozen")
    totals = board.totals()
    assert (totals[LOADS], totals[IN_FLIGHT], totals[CONNECTIONS]) == (2, 3, 4)
    assert totals["restarts", "frozen"] == 1
    assert set(GAUGES) == {IN_FLIGHT, CONNECTIONS}


def test_a_process_that_takes_the_place_of_another_counts_on() -> None:
    board = Board(["/a"])
    for _ in range(2):
        counters = Counters(board)
        counters.note("/a", 200, 0.002, 10)
        counters.publish()
        counters.publish()  # once is enough
    totals = board.totals()
    assert totals["requests", "/a", "200"] == 2
    assert totals["bytes", "/a"] == 20
    assert totals["seconds", "/a"] == pytest.approx(0.004)
    assert totals["durations", "/a", "2"] == 2


def test_what_is_not_known_has_a_place() -> None:
    board = Board(["/a"])
    counters = Counters(board)
    counters.note("/nowhere", 299, 99, 1)
    counters.publish()
    totals = board.totals()
    assert totals["requests", UNMATCHED, "other"] == 1
    assert totals["durations", UNMATCHED, "15"] == 1
