"""The environment: kdcache's own variables, and proxies that must not stand before this machine itself."""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from cache_builder.format.errors import ConfigError

PREFIX = "KDCACHE_"
_KINDS = ("http", "https", "all")

VARIABLES = {
    "KDCACHE_ACCESS_LOG": "server",
    "KDCACHE_ALLOWED_HOSTS": "server",
    "KDCACHE_ALLOW_ANONYMOUS": "server",
    "KDCACHE_ALLOW_ROOT": "server",
    "KDCACHE_BLOCK_CACHE": "whatever reads a remote cache",
    "KDCACHE_BLOCK_CACHE_BYTES": "whatever reads a remote cache",
    "KDCACHE_BODY_S": "server",
    "KDCACHE_CACHES": "server",
    "KDCACHE_CONFIG": "the file of settings of `kdcache serve`",
    "KDCACHE_CORS_ORIGINS": "server",
    "KDCACHE_DATA": "server",
    "KDCACHE_DRAIN_S": "server",
    "KDCACHE_HEADER_S": "server",
    "KDCACHE_HOST": "server",
    "KDCACHE_KEEP_ALIVE_S": "server",
    "KDCACHE_LOG_FORMAT": "server",
    "KDCACHE_LOG_LEVEL": "server",
    "KDCACHE_LOOK_S": "server",
    "KDCACHE_MAX_BODIES_BYTES": "server",
    "KDCACHE_MAX_BODY_BYTES": "server",
    "KDCACHE_MAX_CONNECTIONS": "server",
    "KDCACHE_MAX_HEADERS": "server",
    "KDCACHE_MAX_HEADER_BYTES": "server",
    "KDCACHE_MAX_IDS": "server",
    "KDCACHE_MAX_IN_FLIGHT": "server",
    "KDCACHE_MAX_JSON_RECORDS": "server",
    "KDCACHE_MAX_LARGE_BODIES": "server",
    "KDCACHE_MAX_TARGET_BYTES": "server",
    "KDCACHE_MAX_UNREAD_BYTES": "server",
    "KDCACHE_MIN_BYTES_PER_S": "server",
    "KDCACHE_PAGE_BYTES": "server",
    "KDCACHE_PAGE_DIR": "server",
    "KDCACHE_PORT": "server",
    "KDCACHE_PRELOAD": "server",
    "KDCACHE_READERS": "server",
    "KDCACHE_READ_S": "server",
    "KDCACHE_REQUESTS_PER_PEER": "server",
    "KDCACHE_STORE_PATIENCE_S": "whatever opens a remote store",
    "KDCACHE_STORE_TIMEOUT_S": "whatever opens a remote store",
    "KDCACHE_TLS_CERT": "server",
    "KDCACHE_TLS_KEY": "server",
    "KDCACHE_TLS_KEY_PASSWORD": "server",
    "KDCACHE_TOKEN": "server and trainer",
    "KDCACHE_TOKENS": "server",
    "KDCACHE_TRUSTED_CODE": "whatever replays the views of a cache",
    "KDCACHE_WORKERS": "server",
    "KDCACHE_WORKER_SILENCE_S": "server",
    "KDCACHE_FOLDER": "docker/compose.yaml",
}
"""Every variable of kdcache, and who reads it."""


def check_variables(environment: Mapping[str, str] | None = None) -> None:
    """Raise :class:`ConfigError` for a ``KDCACHE_`` variable that nobody reads: it is misspelt."""
    given = os.environ if environment is None else environment
    unknown = [name for name in sorted(given) if name.upper().startswith(PREFIX)]
    unknown = [name for name in unknown if name.upper() not in VARIABLES]
    if unknown:
        raise ConfigError(
            f"the environment has {', '.join(map(_with_near, unknown))}, which kdcache does not know: unset "
            "what is misspelt; `kdcache serve --help` lists the server's settings"
        )


def _with_near(name: str) -> str:
    near = difflib.get_close_matches(name.upper(), sorted(VARIABLES), n=1)
    return f"{name} (did you mean {near[0]}?)" if near else name


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL, without its password; None where there is none.

    None also for this machine itself, whatever ``http_proxy`` and ``no_proxy`` say.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return without_password(found) if found else None


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def spare_loopback() -> None:
    """Add this machine to ``no_proxy``, for libraries that read the environment themselves.

    Call once, when a command starts. Nothing is changed where no proxy is set.
    """
    if not set(getproxies()) & set(_KINDS):
        return
    for name in ("no_proxy", "NO_PROXY"):
        entries = [entry.strip() for entry in os.environ.get(name, "").split(",") if entry.strip()]
        more = [host for host in ("localhost", "127.0.0.1", "::1") if host not in entries]
        os.environ[name] = ",".join(entries + more)
