"""``Content-Digest`` (RFC 9530) with CRC-32C: what a record answer's bytes are, told beside them.

TCP's own checksum is 16 bits, and proxies see the bytes between two connections.
"""

from __future__ import annotations

import base64
import re

import google_crc32c

HEADER = "Content-Digest"

_STEP = 2**20
_CRC32C = re.compile(r"(?:^|,)\s*crc32c=:([A-Za-z0-9+/=]*):")


def content_digest(content: bytes | memoryview) -> str:
    """The header's value for a body: ``crc32c=:…:``, four bytes in network order as base64."""
    checksum = 0
    for start in range(0, len(content), _STEP):  # the library wants bytes: never a second copy of a page
        checksum = google_crc32c.extend(checksum, bytes(content[start : start + _STEP]))
    return f"crc32c=:{base64.b64encode(checksum.to_bytes(4, 'big')).decode()}:"


def matches(content: bytes, header: str | None) -> bool | None:
    """Whether a body is the one that its header describes; None where the header has no CRC-32C."""
    found = _CRC32C.search(header or "")
    return None if found is None else f"crc32c=:{found[1]}:" == content_digest(content)
