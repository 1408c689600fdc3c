"""Dumps of other programs, by format. To add one: a module with an ``open_…`` function and a line below."""

from __future__ import annotations

from collections.abc import Callable

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

__all__ = ["SOURCES", "Dump", "DumpRequest"]
