"""Dumps of other programs, by format. To add one: a module with an ``open_…`` function and a line below.

A reader of your own needs no line: ``--format package.module:Name``.
"""

from __future__ import annotations

from collections.abc import Callable

from cache_builder.console.dotted import failure, import_dotted, is_dotted
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.interchange.settings import DumpRequest
from cache_builder.interchange.sources.contract import Dump
from cache_builder.interchange.sources.dense import open_dense
from cache_builder.interchange.sources.fkd import open_fkd
from cache_builder.interchange.sources.tinyvit import open_tinyvit
from cache_builder.interchange.sources.topk_parquet import open_topk_parquet

SOURCES: dict[str, Callable[[DumpRequest], Dump]] = {
    "dense": open_dense,
    "tinyvit": open_tinyvit,
    "fkd": open_fkd,
    "topk-parquet": open_topk_parquet,
}


def check_format(form: str) -> None:
    """Raise :class:`ConfigError` for a format that nobody knows."""
    if form not in SOURCES and not is_dotted(form):
        raise ConfigError(f"--format {form} is not one of {', '.join(SOURCES)}, nor package.module:Name")


def open_dump(form: str, request: DumpRequest) -> Dump:
    """Open a dump of a format by its name, or by ``package.module:Name`` of a function of a ``DumpRequest``.

    Raises :class:`ConfigError` for a format that nobody knows.
    """
    check_format(form)
    if form in SOURCES:
        return SOURCES[form](request)
    reader: Callable[[DumpRequest], Dump] = import_dotted(form, "dump format")
    try:
        return reader(request)
    except KDCacheError:
        raise
    except Exception as error:
        raise ConfigError(f"--format {form} cannot open {request.source}: {failure(error)}") from error


__all__ = ["SOURCES", "Dump", "DumpRequest", "check_format", "open_dump"]
