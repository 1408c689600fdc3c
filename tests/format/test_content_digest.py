"""Content-Digest of RFC 9530 with CRC-32C."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from cache_builder.format.content_digest import content_digest, matches


def test_the_check_value_of_the_algorithm() -> None:
    """CRC-32C of "123456789" is 0xE3069283 (RFC 3720, appendix B.4, and the catalogue of CRCs)."""
    assert content_digest(b"123456789") == f"crc32c=:{base64.b64encode(bytes.fromhex('e3069283')).decode()}:"


def test_a_body_of_several_steps_is_summed_as_one() -> None:
    body = np.arange(2**20, dtype="<u4")
    assert content_digest(body.view(np.uint8).data) == content_digest(body.tobytes())
    assert matches(body.tobytes(), content_digest(body.tobytes()))


@pytest.mark.parametrize("header", [None, "", "sha-256=:abcd:", "nonsense", "xcrc32c=:AAAA:"])
def test_a_header_without_the_checksum_says_nothing(header: str | None) -> None:
    assert matches(b"x", header) is None


@pytest.mark.parametrize("header", ["crc32c=:AAAAAA==:", "sha-256=:abcd:, crc32c=:AAAAAA==:", "crc32c=::"])
def test_another_checksum_does_not_match(header: str) -> None:
    assert matches(b"x", header) is False
