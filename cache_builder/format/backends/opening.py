"""Which library a URL is reached through, and the clients that are kept: making one costs a TLS setup."""

from __future__ import annotations

import os
from functools import lru_cache
from urllib.parse import urlsplit

from cache_builder.format.backends.contract import Backend
from cache_builder.format.errors import ConfigError
from cache_builder.format.waiting import store_waiting

_S3 = ("s3", "s3a")
_GOOGLE = ("gs", "gcs")
_AZURE = ("az", "azure", "abfs", "abfss", "adl")
_WEB = ("http", "https")

_EXTRAS = {**dict.fromkeys(_S3, "s3"), **dict.fromkeys(_GOOGLE, "gs"), **dict.fromkeys(_AZURE, "az")}
_EXTRAS |= dict.fromkeys(_WEB, "http")

_READ_BY_CLIENTS = (
    *("AWS_", "AZURE_", "GOOGLE_", "FSSPEC_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT", "HOME"),
)
"""How the names of environment variables begin that clients read."""


def open_backend(url: str) -> tuple[Backend, str]:
    """What a URL is reached through, and the key there that the URL means, without slashes around it.

    Raises :class:`ConfigError` for a protocol that is unknown or not installed, and :class:`StorageError`
    where there are no credentials.
    """
    protocol, _, rest = url.partition("://")
    protocol = protocol.lower()
    head, _, path = rest.partition("/")
    if protocol in _WEB:
        head, path = rest.rstrip("/"), ""
    if not head:
        raise ConfigError(f"{url} names no bucket: expected {protocol}://NAME/PATH")
    try:
        return _kept(protocol, head, store_waiting().timeout_s, _environment()), path.strip("/")
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url} cannot be opened: {error}; {_what_to_install(protocol)}, or give a local path"
        ) from error


def _what_to_install(protocol: str) -> str:
    extra = _EXTRAS.get(protocol)
    return f"install kdcache[{extra}]" if extra else f"install fsspec's package for {protocol}://"


def _environment() -> tuple[tuple[str, str], ...]:
    """The variables that clients read: where one changed, a new client is made."""
    return tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith(_READ_BY_CLIENTS)))


@lru_cache(maxsize=32)
def _kept(protocol: str, head: str, timeout_s: float, environment: tuple[tuple[str, str], ...]) -> Backend:
    # Each library is loaded on first use: most commands work on local caches.
    if protocol in _S3:
        from cache_builder.format.backends.obstore_clients import s3_backend

        return s3_backend(head, timeout_s)
    if protocol in _GOOGLE:
        from cache_builder.format.backends.obstore_clients import google_backend

        return google_backend(head, timeout_s)
    if protocol in _AZURE:
        from cache_builder.format.backends.obstore_clients import azure_backend

        return azure_backend(urlsplit(f"az://{head}"), timeout_s)
    from cache_builder.format.backends.over_fsspec import FsspecBackend

    return FsspecBackend(f"{protocol}://{head}", timeout_s=timeout_s)
