"""A client of logit servers that stands alone: NumPy, pydantic and an HTTP library, no torch and no Zarr."""

from cache_builder.client.client import Client
from cache_builder.client.documents import CacheEntry, Readiness
from cache_builder.client.remote_cache import RemoteCache
from cache_builder.format.errors import CorruptCacheError, KDCacheError, ServerError

__all__ = [
    "CacheEntry",
    "Client",
    "CorruptCacheError",
    "KDCacheError",
    "Readiness",
    "RemoteCache",
    "ServerError",
]
