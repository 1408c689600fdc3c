"""Students by name, and their auxiliary heads."""

from trainer.students.by_name import SMALL_STUDENTS, cnn3, make_student, resnet20, student_names

__all__ = ["SMALL_STUDENTS", "cnn3", "make_student", "resnet20", "student_names"]
