"""Names of students, looked up while torch is not imported; what to say of one that nobody knows."""

from __future__ import annotations

from cache_builder.console.libraries import model_names
from cache_builder.console.names import SMALL_STUDENTS
from cache_builder.console.unknown_models import unknown_model
from cache_builder.format.errors import ConfigError
from trainer.objective.expression import parse_call

# Its functions take num_classes, as every factory does.
TIMM = "timm.models:"


def check_student_name(spec: str) -> None:
    """Raise :class:`ConfigError` for a name that is certainly no student's."""
    name = parse_call(spec).name
    known = model_names("torchvision")
    if ":" not in name and known and name not in SMALL_STUDENTS and name not in known:
        raise ConfigError(unknown_student(name))


def unknown_student(name: str) -> str:
    """What to say of a name that is neither torchvision's nor one of our own."""
    return unknown_model("student", name, SMALL_STUDENTS, TIMM, " (or package.module:factory)")
