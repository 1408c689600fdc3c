import pytest

from cache_builder.format import CorruptCacheError
from logit_server.errors import STATUSES, shorten, status_of


def test_a_class_that_is_not_named_has_the_status_of_its_parent() -> None:
    class WorseError(CorruptCacheError):
        pass

    assert status_of(WorseError("x")) == STATUSES[CorruptCacheError] == 500


@pytest.mark.parametrize("value", ["x" * 10_000_000, list(range(10_000_000)), b"y" * 10_000_000, 10**1000])
def test_values_in_errors_are_short_whatever_their_size(value: object) -> None:
    assert len(shorten(value)) <= 60
