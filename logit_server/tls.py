"""https: the certificate and key of a server, looked at before it starts."""

from __future__ import annotations

import ssl
from typing import Any

from cache_builder.format.errors import ConfigError
from logit_server.settings import Settings


def scheme_of(settings: Settings) -> str:
    """``https`` where there is a certificate, else ``http``."""
    return "https" if settings.tls_cert else "http"


def tls_arguments(settings: Settings) -> dict[str, Any]:
    """What uvicorn is to be told; :class:`ConfigError` for files that do not fit together."""
    if settings.tls_cert is None and settings.tls_key is None:
        return {}
    if settings.tls_cert is None or settings.tls_key is None:
        given, missing = ("--tls-key", "--tls-cert") if settings.tls_key else ("--tls-cert", "--tls-key")
        raise ConfigError(
            f"{given} is given without {missing}: https needs a certificate and its private key"
        )
    for flag, file in (("--tls-cert", settings.tls_cert), ("--tls-key", settings.tls_key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{flag} {file} cannot be read: {error.strerror}") from error
    secret = settings.tls_key_password
    password = secret.get_secret_value() if secret else ""
    _check_pair(settings, password)
    return {
        "ssl_certfile": settings.tls_cert,
        "ssl_keyfile": settings.tls_key,
        "ssl_keyfile_password": password or None,
    }


def _check_pair(settings: Settings, password: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert, key = settings.tls_cert, settings.tls_key
    asked: list[bool] = []

    def tell() -> str:
        # Without this, OpenSSL would ask the terminal.
        asked.append(True)
        return password

    try:
        context.load_cert_chain(cert or "", key, tell)
    except (ssl.SSLError, OSError) as error:
        if asked:
            told = "does not open it" if password else "is not set"
            raise ConfigError(
                f"--tls-key {key} is encrypted, and KDCACHE_TLS_KEY_PASSWORD {told}: set it to its password"
            ) from error
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"--tls-cert {cert} and --tls-key {key} are no certificate and its key, both in PEM ({reason}): "
            "name files that belong together"
        ) from error
