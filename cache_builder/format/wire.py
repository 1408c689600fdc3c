"""What server and clients must agree about, once: paths, headers, media types and the type of rows."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np

CACHES_PATH = "/v1/caches"
"""Below it each cache has a path of its own, by its name or its cache_id."""

ID_HEADER = "X-KDCache-Id"
"""Stands on every answer about a cache: its cache_id."""
DIGEST_HEADER = "Content-Digest"
"""RFC 9530; see ``content_digest``."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
ROWS = "application/vnd.kdcache.rows"
"""Rows as raw little-endian uint32."""
RECORDS = "application/vnd.kdcache.records"
"""Packed records, one after another."""
NPY = "application/vnd.kdcache.npy"
"""One array in NumPy's .npy format, without pickle."""

ROW_TYPE = np.dtype("<u4")
"""A row in a body of type ``ROWS``."""

EXAMPLE_URL = f"http://host:8000{CACHES_PATH}/NAME"
"""What the URL of a cache looks like, for messages."""


def cache_path(name: str) -> str:
    """Path of a cache on a server, without a slash at its end."""
    return f"{CACHES_PATH}/{quote(name, safe='')}"
