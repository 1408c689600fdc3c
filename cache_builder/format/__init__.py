"""The store format: manifest, layout, codecs, writer and reader. NumPy only; never imports torch.

Names are imported when they are first asked for: ``--help`` needs the errors and waits for no Zarr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_builder.format.codecs import CODECS, Codec, Ranked, RecordLayout
    from cache_builder.format.errors import (
        ConfigError,
        CorruptCacheError,
        DataError,
        FormatError,
        IncompleteCacheError,
        KDCacheError,
        ServerError,
        StorageError,
        UnknownSampleError,
    )
    from cache_builder.format.manifest import Manifest
    from cache_builder.format.reader import Cache, open_cache

__all__ = [
    "CODECS",
    "Cache",
    "Codec",
    "ConfigError",
    "CorruptCacheError",
    "DataError",
    "FormatError",
    "IncompleteCacheError",
    "KDCacheError",
    "Manifest",
    "Ranked",
    "RecordLayout",
    "ServerError",
    "StorageError",
    "UnknownSampleError",
    "open_cache",
]

_HOMES = {
    "CODECS": "codecs",
    "Cache": "reader",
    "Codec": "codecs",
    "Manifest": "manifest",
    "Ranked": "codecs",
    "RecordLayout": "codecs",
    "open_cache": "reader",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cache_builder.format' has no attribute {name!r}")
    return getattr(import_module(f"cache_builder.format.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
