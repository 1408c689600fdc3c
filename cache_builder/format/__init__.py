"""The store format: manifest, layout, codecs, writer and reader. NumPy only; never imports torch."""

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
