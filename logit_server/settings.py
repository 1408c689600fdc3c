"""What a server can be told: as flags, as ``KDCACHE_*`` variables, and in a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ByteSize, Field

from cache_builder.console.options import Option
from logit_server.access_settings import AccessSettings
from logit_server.listed import Listed
from logit_server.sources import gather

_LISTENING = "Where it listens"
_PAGES = "Pages"
_LOG = "Log"


class Settings(AccessSettings):
    """The settings of one server run: each a flag of ``kdcache serve``, a variable and a line of a file."""

    panel: ClassVar[str] = "Limits"

    caches: Annotated[Listed, Option(is_argument=True, metavar="CACHE...")] = ()
    """Caches to serve: paths or fsspec URLs, or NAME=PATH to serve one under another name than its
    manifest's; a folder of caches stands for all that lie in it. At SIGHUP the list and the folders are read
    again. In KDCACHE_CACHES they stand between commas, or as a JSON list."""
    data: Annotated[Listed, Option(metavar="SPEC")] = ()
    """Data sets whose pictures the pages show, SPEC for every cache or NAME=SPEC for one, such as
    imagefolder:/data/train. Rendering them needs torch and torchvision, in a process of its own. In
    KDCACHE_DATA as in KDCACHE_CACHES."""
    host: Annotated[str, Option(panel=_LISTENING)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for every one. Other machines are answered with tokens only, unless
    --allow-anonymous says otherwise."""
    port: Annotated[int, Option(panel=_LISTENING)] = Field(8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one."""
    workers: Annotated[int, Option(panel=_LISTENING)] = Field(1, ge=1, le=256)
    """Processes that answer requests; they share one set of pages. Several are watched: one that dies or
    freezes is replaced. A single one is for whoever starts the server to watch."""
    worker_silence_s: Annotated[float, Option(panel=_LISTENING)] = Field(10, ge=1)
    """Seconds without a sign of life after which one of several workers is killed and replaced."""
    page_dir: Annotated[Path | None, Option(panel=_PAGES)] = None
    """Folder for the page files, in a private subfolder that is removed at the end; default: the system's
    temporary folder."""
    page_bytes: Annotated[ByteSize, Option(panel=_PAGES)] = Field(default=ByteSize(8 * 2**30), gt=0)
    """Budget of all records in page files together, e.g. ``8GiB``; the block of a view that was unused for
    longest goes first. A view may be larger: its blocks then come and go."""
    readers: Annotated[int, Option(panel=_PAGES)] = Field(2, ge=0, le=16)
    """Processes of each worker that read and decode pages, started when they are needed; 0 lets the worker's
    threads do it, which saves memory, and requests wait while pages are loaded."""
    preload: Annotated[Listed, Option(metavar="NAME", panel=_PAGES)] = ()
    """Caches whose pages are loaded at start, or ``all``; the log tells how far it is. In KDCACHE_PRELOAD as
    in KDCACHE_CACHES."""
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
    requests_per_peer: int | None = Field(None, ge=1)
    """Requests of one address that a worker answers at once, those whose body is still to come among them;
    further ones get 429 and Retry-After. By default there is no such limit. Clients behind one proxy share an
    address."""
    max_connections: int = Field(16_384, ge=1)
    """Connections a worker holds at once. Beyond them, the one that has waited longest for a request is
    closed for a new one; where all are being answered, a new one gets 503 and Retry-After."""
    max_unread_bytes: ByteSize = Field(default=ByteSize(2**30), gt=0)
    """Most bytes of answers that a worker holds for clients that do not read them; beyond them, the
    connection that has stood still longest is closed."""
    header_s: float = Field(20, gt=0)
    """Seconds a client has to send the header of a request; a slower one gets 408."""
    body_s: float = Field(20, gt=0)
    """Seconds by which the body of a request may fall behind min_bytes_per_s while it comes; a slower client
    gets 408."""
    read_s: float = Field(30, gt=0)
    """Seconds after which the connection is closed to a client that takes its answer more slowly than
    min_bytes_per_s."""
    min_bytes_per_s: ByteSize = Field(default=ByteSize(2**10), gt=0)
    """Slowest rate at which a client may send a body or take an answer for long."""
    keep_alive_s: int = Field(75, ge=1)
    """Seconds an idle connection stays open."""
    drain_s: int = Field(30, ge=0)
    """Seconds that running requests have to finish after SIGTERM."""
    look_s: float = Field(5, gt=0)
    """Seconds between two looks at the store of every served cache: one that was extended or replaced is
    noticed so soon, if no request comes first."""
    access_log: Annotated[bool, Option(panel=_LOG)] = False
    """Log one line for each request: its route, not its path, which may name samples."""
    log_format: Annotated[Literal["text", "json"], Option(panel=_LOG)] = "text"
    """How the log on stderr is written: lines for people, or a JSON object a line."""
    log_level: Annotated[Literal["info", "warning", "error"], Option(panel=_LOG)] = "info"
    """The lowest level that is logged. Start, stop, loaded and evicted pages and refusals are info."""

    @classmethod
    def checked(cls, **arguments: object) -> Self:
        """Settings from arguments, environment and file; what is wrong with them as a ``ConfigError``."""
        return gather(cls, arguments).settings
