"""The settings that say who may ask a server, and over which connections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import SecretStr, field_validator

from cache_builder.console.options import Option, Settings
from logit_server.listed import Listed

_ACCESS = "Who is answered"
_TLS = "Encryption"
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*)|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(:\d+)?")


class AccessSettings(Settings):
    """Who is answered, and over which connections. Secrets are no flags: everybody sees a process's flags."""

    token: Annotated[SecretStr | None, Option(is_hidden=True)] = None
    """A token that may do everything: whoever asks sends it as ``Authorization: Bearer TOKEN``. kdtrain sends
    what its own KDCACHE_TOKEN says. There is no flag for it, because command lines are visible to others."""
    tokens: Annotated[Path | None, Option(panel=_ACCESS, metavar="FILE")] = None
    """A file of hashed tokens, one a line, as --new-token prints them; it is read again when it changes.
    Where there are tokens, only /livez, /healthz and /readyz answer without one, and they name no caches."""
    allow_anonymous: Annotated[bool, Option(panel=_ACCESS)] = False
    """Answer everybody who can reach a server without tokens. It is needed to listen on an address that other
    machines reach."""
    allow_root: Annotated[bool, Option(panel=_ACCESS)] = False
    """Listen as root on an address that other machines reach."""
    allowed_hosts: Annotated[Listed, Option(panel=_ACCESS, flag="--allowed-host", metavar="NAME")] = ()
    """A name by which clients may call this server in the header Host, such as logits.example.org,
    *.example.org or * for every one; give it again for more. The names of this machine and the address that
    --host gives are always taken, and every numeric one where --host is 0.0.0.0 or ::. Others are refused
    (421), so that no web page reaches the server under a name of its own. Without this option a server with
    tokens that listens beyond loopback takes every name."""
    cors_origins: Annotated[Listed, Option(panel=_ACCESS, flag="--cors-origin", metavar="ORIGIN")] = ()
    """An origin, such as https://lab.example.org, whose web pages may read the answers; give it again for
    more. Without it no page of another origin can."""
    tls_cert: Annotated[Path | None, Option(panel=_TLS, metavar="FILE")] = None
    """The certificate chain (PEM) to answer https with; --tls-key is its key."""
    tls_key: Annotated[Path | None, Option(panel=_TLS, metavar="FILE")] = None
    """The private key (PEM) of the certificate. The password of an encrypted one comes from
    KDCACHE_TLS_KEY_PASSWORD."""
    tls_key_password: Annotated[SecretStr | None, Option(is_hidden=True)] = None
    """The password of the private key."""

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if value is not None and not (text and text.isascii() and text.isprintable() and " " not in text):
            raise ValueError("a token is made of visible ASCII characters, without spaces")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is no host name: expected one such as logits.example.org, no scheme or port"
                )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: expected one such as https://lab.example.org, without a path"
                )
        return value
