"""Names that a build is given, looked up before anything is opened. What knows them is imported then."""

from __future__ import annotations

from cache_builder.console.names import unknown_name
from cache_builder.format.errors import ConfigError


def check_codec_name(name: str) -> None:
    """Raise :class:`ConfigError` for a codec that there is not."""
    from cache_builder.format.codecs import CODECS

    if name not in CODECS:
        raise ConfigError(unknown_name("codec", name, CODECS))


def check_teacher_name(name: str) -> None:
    """Raise :class:`ConfigError` for a name that is certainly no teacher's."""
    from cache_builder.teachers import known

    known.check_teacher_name(name)
