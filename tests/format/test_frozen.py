"""Value objects cannot be changed and take nothing they do not know."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from cache_builder.format.frozen import Frozen


class Point(Frozen):
    """A place."""

    x: float
    """Metres to the right."""


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ValidationError):
        Point(x=1.0).x = 2.0  # type: ignore[misc]
    for wrong in ({"x": 1.0, "y": 2.0}, {"x": math.nan}, {}):
        with pytest.raises(ValidationError):
            Point.model_validate(wrong)


def test_docstrings_under_fields_describe_them() -> None:
    assert Point.model_fields["x"].description == "Metres to the right."


def test_errors_and_value_objects_need_no_numpy() -> None:
    program = (
        "import sys, cache_builder.format.errors, cache_builder.format.frozen; print('numpy' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
