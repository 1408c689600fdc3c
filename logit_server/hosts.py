"""The names under which a server may be asked: a web page cannot reach it by a name of its own."""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache

from starlette.types import Scope

from cache_builder.console.environment import is_loopback
from logit_server.errors import HostError
from logit_server.settings import Settings

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d*)?")


class Hosts:
    """Checks the header ``Host`` (DNS rebinding), as the help of ``--allowed-host`` says."""

    def __init__(self, settings: Settings, *, has_tokens: bool) -> None:
        listed = [_normal(host) for host in settings.allowed_hosts]
        self._is_local = is_loopback(settings.host)
        self._any = "*" in listed or (has_tokens and not self._is_local and not listed)
        self._suffixes = tuple(host[1:] for host in listed if host.startswith("*."))
        self._names = {*listed, _normal(settings.host), _normal(socket.gethostname())}
        self._is_known = lru_cache(maxsize=256)(self._look_up)

    def check(self, scope: Scope) -> None:
        """Raise :class:`HostError` for a request that was sent to another name, or to several."""
        if self._any:
            return
        given = [value for key, value in scope["headers"] if key == b"host"]
        if not given and scope.get("http_version", "1.0") == "1.0":
            return  # no web browser
        if len(given) != 1 or not self._is_known(given[0]):
            shown = ", ".join(value.decode("latin-1")[:128] for value in given) or "missing"
            raise HostError(
                f"the header Host is {shown!r}, and this server does not answer to that name; ask it by its "
                "address, or start it with --allowed-host NAME"
            )

    def _look_up(self, value: bytes) -> bool:
        parts = _HOST.fullmatch(value.decode("latin-1"))
        if parts is None:
            return False
        host = _normal(parts[1])
        if host in self._names or is_loopback(host) or host.endswith(self._suffixes or ("\0",)):
            return True
        # A numeric address is nobody's name; a server on loopback has no other than its own.
        return not self._is_local and _is_numeric(host)


def _normal(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
