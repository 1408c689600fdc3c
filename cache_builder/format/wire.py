"""What server and clients must agree about, once: paths, headers, media types and the type of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cache_builder.format.manifest import Manifest

CACHES_PATH = "/v1/caches"
"""Below it each cache has a path of its own, by its name or its cache_id."""
ADMIN_PATH = "/v1/admin"
RELOAD_PATH = f"{ADMIN_PATH}/reload"
METRICS_PATH = "/metrics"

ID_HEADER = "X-KDCache-Id"
"""Stands on every answer about a cache: its cache_id."""
DIGEST_HEADER = "Content-Digest"
"""RFC 9530; see ``content_digest``."""

JSON = "application/json"
PROBLEM = "application/problem+json"
"""Of every error (RFC 9457)."""
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
"""The stream format of Apache Arrow IPC."""
ROWS = "application/vnd.kdcache.rows"
"""Rows as raw little-endian uint32."""
WIDE_ROWS = "application/vnd.kdcache.wide-rows"
"""Rows as raw little-endian uint64."""
RECORDS = "application/vnd.kdcache.records"
"""Packed records, one after another."""
COUNTED = "application/vnd.kdcache.counted-records"
"""Of n rows whose numbers of records differ: these n numbers as ``COUNT_TYPE``, then all packed records."""
NPY = "application/vnd.kdcache.npy"
"""One array in NumPy's .npy format, without pickle."""

ROW_TYPES: dict[str, np.dtype[np.unsignedinteger[Any]]] = {
    ROWS: np.dtype("<u4"),
    WIDE_ROWS: np.dtype("<u8"),
}
"""What a row is, by the type of the body that it stands in."""
COUNT_TYPE = np.dtype("<u8")
"""How many records a row has, in a body of type ``COUNTED``."""

EXAMPLE_URL = f"http://host:8000{CACHES_PATH}/NAME"
"""What the URL of a cache looks like, for messages."""


def rows_body(rows: NDArray[np.int64]) -> tuple[str, bytes]:
    """Media type and bytes of a request for rows: of the type that every server reads, where they fit it."""
    is_narrow = not rows.size or rows.max() <= np.iinfo(ROW_TYPES[ROWS]).max
    media_type = ROWS if is_narrow else WIDE_ROWS
    return media_type, rows.astype(ROW_TYPES[media_type]).tobytes()


def records_type(manifest: Manifest) -> str:
    """Media type of a cache's raw records: with their counts, where these are not the same for all rows."""
    return COUNTED if manifest.positions.kind == "ragged" else RECORDS


def cache_path(name: str) -> str:
    """Path of a cache on a server, without a slash at its end."""
    return f"{CACHES_PATH}/{quote(name, safe='')}"
