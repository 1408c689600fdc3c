"""What a server can be told, as arguments or as ``KDCACHE_*`` variables of the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cache_builder.console.environment import check_variables
from cache_builder.format import ConfigError

ENVIRONMENT_PREFIX = "KDCACHE_"


class Settings(BaseSettings):
    """The settings of one server run. Arguments win over the environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
    )

    caches: Annotated[tuple[str, ...], NoDecode] = ()
    """Paths or fsspec URLs, or NAME=PATH to serve one under another name than its manifest's.
    In the environment: separated by commas, or a JSON list."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for every one. Without a token everybody who can reach it is
    answered."""
    port: int = Field(8000, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    token: SecretStr | None = None
    """Whoever asks must send it as ``Authorization: Bearer TOKEN``; only /healthz and /readyz answer without.
    kdtrain sends what its own KDCACHE_TOKEN says."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that answer requests. They share one set of pages."""
    page_dir: Path | None = None
    """Folder for the page files, in a private subfolder that is removed at the end; default: the system's
    temporary folder."""
    page_bytes: ByteSize = Field(default=ByteSize(8 * 2**30), gt=0)
    """Budget of all records in page files together, e.g. ``8GiB``; the block of a view that was unused for
    longest goes first. A view may be larger: its blocks then come and go."""
    max_ids: int = Field(65_536, ge=1)
    """Most rows or sample ids in one request, and most records that these may have."""
    max_json_records: int = Field(4_096, ge=1)
    """Most records in one answer of decoded JSON."""
    max_body_bytes: ByteSize = Field(default=ByteSize(16 * 2**20), gt=0)
    """Largest request body; a larger one is refused before it is read."""
    max_bodies_bytes: ByteSize = Field(default=ByteSize(2**30), gt=0)
    """Most bytes of request bodies that a worker holds at once; a request beyond them gets 503 and
    Retry-After."""
    max_large_bodies: int = Field(2, ge=1)
    """Large JSON bodies that a worker parses at once; others wait for their turn."""
    max_target_bytes: ByteSize = Field(default=ByteSize(16 * 2**10), gt=0)
    """Longest path and query of a request; a longer one gets 414."""
    max_header_bytes: ByteSize = Field(default=ByteSize(32 * 2**10), gt=0)
    """Largest header of a request with its path and query; a larger one gets 431."""
    max_headers: int = Field(100, ge=1)
    """Most header fields of a request; more get 431."""
    max_in_flight: int = Field(512, ge=1)
    """Requests a worker answers at once; further ones get 503 and Retry-After. A request counts from when its
    body has come."""
    max_connections: int = Field(16_384, ge=1)
    """Connections a worker holds at once. Beyond them, the one that has waited longest for a request is
    closed for a new one; where all are being answered, a new one gets 503 and Retry-After."""
    max_unread_bytes: ByteSize = Field(default=ByteSize(2**30), gt=0)
    """Most bytes of answers that a worker holds for clients that do not read them; beyond them, the
    connection that has stood still longest is closed."""
    header_s: float = Field(20, gt=0)
    """Seconds a client has to send the header of a request; a slower one gets 408."""
    body_s: float = Field(20, gt=0)
    """Seconds a client has to send the body of a request, beside those that its bytes take at
    min_bytes_per_s; a slower one gets 408."""
    read_s: float = Field(30, gt=0)
    """Seconds after which the connection is closed to a client that takes its answer more slowly than
    min_bytes_per_s."""
    min_bytes_per_s: ByteSize = Field(default=ByteSize(2**10), gt=0)
    """Slowest rate at which a client may send a body or take an answer for long."""
    keep_alive_s: int = Field(75, ge=1)
    """Seconds an idle connection stays open."""
    drain_s: int = Field(30, ge=0)
    """Seconds that running requests have to finish after SIGTERM."""
    access_log: bool = False
    """Whether to log one line per request."""

    @field_validator("caches", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return tuple(item.strip() for item in value.split(",") if item.strip())

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value else ""
        if value is not None and not (text and text.isascii() and text.isprintable() and " " not in text):
            raise ValueError("a token is made of visible ASCII characters, without spaces")
        return value

    @classmethod
    def checked(cls, **arguments: object) -> Self:
        """Settings from arguments and environment; what is wrong with them as a :class:`ConfigError`.

        So is a variable that means nothing here: a misspelt limit would be no limit.
        """
        check_variables()
        try:
            return cls(**arguments)  # type: ignore[arg-type]
        except ValidationError as error:
            wrong = "; ".join(
                _explain(str(item["loc"][0]), item["msg"], item["input"]) for item in error.errors()
            )
            raise ConfigError(f"the server's settings are not valid: {wrong}") from error


def _explain(field: str, message: str, found: object) -> str:
    shown = "not shown" if field == "token" else repr(found)
    return f"{field} (or {ENVIRONMENT_PREFIX}{field.upper()}) is {shown}: {message}"


def described() -> str:
    """Every setting as a variable of the environment: name, default, meaning."""
    lines = []
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"{ENVIRONMENT_PREFIX}{name.upper()}  (default: {field.default!s})\n    {meaning}")
    return "\n".join(lines)
