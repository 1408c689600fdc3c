"""Names that a run is given, looked up before anything is opened. What knows them is imported then."""

from __future__ import annotations


def check_student(spec: str) -> None:
    """Raise :class:`ConfigError` for a name that is certainly no student's."""
    from trainer.students.known import check_student_name

    check_student_name(spec)


def check_objective(text: str) -> None:
    """Raise :class:`ConfigError` for an objective that cannot be read, or that names a loss nobody has."""
    from trainer.objective.written import read_objective

    read_objective(text, "imagenet")
