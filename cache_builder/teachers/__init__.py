"""Teachers by name. Adding a source of teachers: a module with an ``open_…`` function and a line below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache_builder.teachers.preprocessing import Preprocessing

if TYPE_CHECKING:
    from cache_builder.teachers.ensemble import combined
    from cache_builder.teachers.known import ALIASES
    from cache_builder.teachers.teacher import Teacher, TeacherRequest

__all__ = ["ALIASES", "Preprocessing", "Teacher", "TeacherRequest", "combined", "open_teacher"]

# Imported when they are first asked for: names and weights files are looked at before torch is.
_HOMES = {
    "ALIASES": "cache_builder.teachers.known",
    "Teacher": "cache_builder.teachers.teacher",
    "TeacherRequest": "cache_builder.teachers.teacher",
    "combined": "cache_builder.teachers.ensemble",
}


def open_teacher(name: str, request: TeacherRequest) -> Teacher:
    """Build a teacher in evaluation mode.

    Raises :class:`ConfigError` for an unknown name (nearest names offered) or weights that do not fit, and
    :class:`DataError` for weights that cannot be read.
    """
    from cache_builder.teachers.factory import open_factory
    from cache_builder.teachers.timm_models import PREFIX, open_timm
    from cache_builder.teachers.torchvision_models import open_torchvision

    if name.startswith(PREFIX):
        return open_timm(name, request)
    return open_factory(name, request) if ":" in name else open_torchvision(name, request)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
