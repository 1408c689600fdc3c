"""``python -m logit_server.probe [URL]``: whether a server on this machine is ready, for health checks.

It exits with 0 where the server answers 200, and else says on stdout what it found and exits with 1. Where
plain HTTP is not answered it tries https, without a look at the certificate, which names the server and not
this machine's loopback address. No token is needed for the health of a server.
"""

from __future__ import annotations

import http.client
import ssl
import sys
from urllib.parse import urlsplit

DEFAULT = "http://127.0.0.1:8000/readyz"
_TIMEOUT_S = 8.0
"""Longer than a server takes to give up on a store."""


def main(arguments: list[str]) -> int:
    """Ask the server once; returns the exit code."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"usage: python -m logit_server.probe [URL]    (default: {DEFAULT})\n")
        return 2
    status, said = ask(*arguments or [DEFAULT])
    if status != 200:
        sys.stdout.write(f"{said}\n")
    return 0 if status == 200 else 1


def ask(url: str) -> tuple[int, str]:
    """The status that a URL is answered with and its body; 0 and a reason where there is no answer."""
    try:
        return _ask(url, is_tls=url.startswith("https:"))
    except (ConnectionResetError, http.client.HTTPException) as error:
        first = error  # it may be what a server of https does with plain HTTP
    except OSError as error:
        return 0, f"no answer from {url}: {error}"
    try:
        return _ask(url, is_tls=True)
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer from {url}: {_named(first)}; nor by https: {_named(error)}"


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _ask(url: str, *, is_tls: bool) -> tuple[int, str]:
    parts = urlsplit(url)
    address = parts.hostname or "127.0.0.1", parts.port
    if is_tls:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            *address, timeout=_TIMEOUT_S, context=trusting
        )
    else:
        connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        return response.status, response.read(2**16).decode("utf-8", "replace")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
