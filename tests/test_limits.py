"""How long a test may take."""

from __future__ import annotations

import pytest

from tests.conftest import SLOW_LIMIT_S, pytest_collection_modifyitems


def limit_of(request: pytest.FixtureRequest, *marks: pytest.MarkDecorator) -> float | None:
    """Of a test with these marks, once it was collected."""
    item = pytest.Function.from_parent(request.node.parent, name="made_here", callobj=lambda: None)
    for mark in marks:
        item.add_marker(mark)
    pytest_collection_modifyitems([item])
    found = item.get_closest_marker("timeout")
    return None if found is None else found.args[0]


def test_only_slow_tests_have_the_long_limit(request: pytest.FixtureRequest) -> None:
    assert limit_of(request, pytest.mark.slow) == SLOW_LIMIT_S
    assert limit_of(request) is None
    assert limit_of(request, pytest.mark.slow, pytest.mark.timeout(5)) == 5
