"""What each fault of an object store makes of each command: a sentence, never a traceback, never damage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store_faults import ALL_FAULTS, COMMANDS, HARMLESS, Bench, Ending, bench


@pytest.fixture(scope="module")
def store() -> Iterator[Bench]:
    with bench() as made:
        yield made


def check(fault: str, ending: Ending) -> None:
    if fault in HARMLESS:
        assert ending.code == 0, ending.said + ending.traceback
    else:
        assert ending.is_sentence, ending.said + ending.traceback
    assert not ending.blames_data, ending.said


@pytest.mark.parametrize("fault", ["no credentials", "403", "cut"])
def test_faults_before_inspect(store: Bench, fault: str) -> None:
    check(fault, store.end_of("inspect", fault))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_every_fault_before_every_command(store: Bench, fault: str, command: str) -> None:
    check(fault, store.end_of(command, fault))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("fault", ["404 key", "500", "cut", "flipped"])
def test_faults_in_the_middle_of_a_command(store: Bench, fault: str, command: str) -> None:
    check(fault, store.end_of(command, fault, sound_requests=5))
