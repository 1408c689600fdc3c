"""What a server can be told: as flags, as ``KDCACHE_*`` variables, and in a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import ByteSize, Field

from cache_builder.console.options import Option
from logit_server.access_settings import AccessSettings
from logit_server.listed import Listed
from logit_server.sources import gather

_LISTENING = "Where it listens"
_PAGES = "Pages"


class Settings(AccessSettings):
    """The settings of one server run: each a flag of ``kdcache serve``, a variable and a line of a file."""

    panel: ClassVar[str] = "Limits"

    caches: Annotated[Listed, Option(is_argument=True, metavar="CACHE...")] = ()
    """Caches to serve: paths or fsspec URLs, or NAME=PATH to serve one under another name than its
    manifest's. In KDCACHE_CACHES they stand between commas, or as a JSON list."""
    host: Annotated[str, Option(panel=_LISTENING)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for every one. Other machines are answered with tokens only, unless
    --allow-anonymous says otherwise."""
    port: Annotated[int, Option(panel=_LISTENING)] = Field(8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one."""
    workers: Annotated[int, Option(panel=_LISTENING)] = Field(1, ge=1, le=256)
    """Processes that answer requests; they share one set of pages."""
    page_dir: Annotated[Path | None, Option(panel=_PAGES)] = None
    """Folder for the page files, in a private subfolder that is removed at the end; default: the system's
    temporary folder."""
    page_bytes: Annotated[ByteSize, Option(panel=_PAGES)] = Field(default=ByteSize(8 * 2**30), gt=0)
    """Budget of all records in page files together, e.g. ``8GiB``; the block of a view that was unused for
    longest goes first. A view may be larger: its blocks then come and go."""
    max_ids: int = Field(65_536, ge=1)
    """Most rows or sample ids in one request, and most records that these may have."""
    max_json_records: int = Field(4_096, ge=1)
    """Most records in one answer of decoded JSON."""
    max_body_bytes: ByteSize = Field(default=ByteSize(16 * 2**20), gt=0)
    """Largest request body that is read."""
    max_in_flight: int = Field(512, ge=1)
    """Requests a worker answers at once; further ones get 503 and Retry-After."""
    keep_alive_s: int = Field(75, ge=1)
    """Seconds an idle connection stays open."""
    drain_s: int = Field(30, ge=0)
    """Seconds that running requests have to finish after SIGTERM."""
    access_log: Annotated[bool, Option(panel="Log")] = False
    """Whether to log one line per request."""

    @classmethod
    def checked(cls, **arguments: object) -> Self:
        """Settings from arguments, environment and file; what is wrong with them as a ``ConfigError``."""
        return gather(cls, arguments).settings
