"""The store format: manifest, layout, record codec, writer and reader. NumPy only; never imports torch."""

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
from cache_builder.format.layout import RecordLayout
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import Cache, open_cache

__all__ = [
    "Cache",
    "ConfigError",
    "CorruptCacheError",
    "DataError",
    "FormatError",
    "IncompleteCacheError",
    "KDCacheError",
    "Manifest",
    "RecordLayout",
    "ServerError",
    "StorageError",
    "UnknownSampleError",
    "open_cache",
]
