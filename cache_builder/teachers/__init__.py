"""Teachers by name. Adding a source of teachers: a module with an ``open_…`` function and a line below."""

from __future__ import annotations

from cache_builder.teachers.ensemble import combined
from cache_builder.teachers.factory import open_factory
from cache_builder.teachers.preprocessing import Preprocessing
from cache_builder.teachers.teacher import Teacher, TeacherRequest
from cache_builder.teachers.timm_models import PREFIX, open_timm
from cache_builder.teachers.torchvision_models import ALIASES, open_torchvision

__all__ = ["ALIASES", "Preprocessing", "Teacher", "TeacherRequest", "combined", "open_teacher"]


def open_teacher(name: str, request: TeacherRequest) -> Teacher:
    """Build a teacher in evaluation mode.

    Raises :class:`ConfigError` for an unknown name (nearest names offered) or weights that do not fit, and
    :class:`DataError` for weights that cannot be read.
    """
    if name.startswith(PREFIX):
        return open_timm(name, request)
    return open_factory(name, request) if ":" in name else open_torchvision(name, request)
