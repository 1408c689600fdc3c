"""Who listens where: nobody offers a cache to other machines by mistake."""

from __future__ import annotations

import os

from cache_builder.console.environment import is_loopback
from cache_builder.format.errors import ConfigError
from logit_server.settings import Settings


def check_listening(settings: Settings, address: str, user_id: int | None = None) -> None:
    """Raise :class:`ConfigError` for an address that other machines reach, without tokens or as root.

    ``address``: the one that ``settings.host`` stands for; ``user_id``: by default this process's own.
    """
    if is_loopback(address.partition("%")[0]):
        return
    if settings.token is None and settings.tokens is None and not settings.allow_anonymous:
        raise ConfigError(
            f"listening on {settings.host} would answer everybody who reaches this machine: set "
            "KDCACHE_TOKEN or --tokens FILE, or say --allow-anonymous if that is meant"
        )
    if (own_user() if user_id is None else user_id) == 0 and not settings.allow_root:
        raise ConfigError(
            f"listening on {settings.host} as root would put this whole machine at risk: run the server as "
            "another user, or say --allow-root if that is meant"
        )


def own_user() -> int | None:
    """The user that this process runs as; None where users have no numbers."""
    return os.geteuid() if hasattr(os, "geteuid") else None
