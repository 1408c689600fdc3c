"""Students by name, and their auxiliary heads.

The factories are imported when they are first asked for: a look at a name should not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.students.by_name import SMALL_STUDENTS, cnn3, make_student, resnet20, student_names

__all__ = ["SMALL_STUDENTS", "cnn3", "make_student", "resnet20", "student_names"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("trainer.students.by_name"), name)
