"""Value objects: immutable, closed, finite, and each field explains itself."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cache_builder.format.frozen import Frozen


class Crop(Frozen):
    """A toy."""

    share: float = 1.0
    """Part of the area, without unit."""


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Crop().share = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("values", [{"shaer": 0.5}, {"share": float("nan")}, {"share": float("inf")}])
def test_unknown_keys_and_numbers_that_are_none_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Crop.model_validate(values)


def test_the_docstring_below_a_field_is_its_description() -> None:
    assert Crop.model_fields["share"].description == "Part of the area, without unit."
