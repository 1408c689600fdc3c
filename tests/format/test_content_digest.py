"""Content-Digest of RFC 9530 with XXH3-64."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from cache_builder.format.content_digest import content_digest, matches


def test_the_check_value_of_the_algorithm() -> None:
    """XXH3-64 of nothing, seed 0, is 0x2D06800538D394C2 (sanity checks of xxHash's own tests)."""
    assert content_digest(b"") == f"xxh3-64=:{base64.b64encode(bytes.fromhex('2d06800538d394c2')).decode()}:"


def test_memory_is_summed_as_its_bytes_are() -> None:
    body = np.arange(2**20, dtype="<u4")
    assert content_digest(body.view(np.uint8).data) == content_digest(body.tobytes())
    assert matches(body.tobytes(), content_digest(body.tobytes()))


def test_one_flipped_bit_is_noticed() -> None:
    body = bytearray(np.random.default_rng(0).bytes(18_000))
    told = content_digest(bytes(body))
    for place in range(0, len(body), 997):
        body[place] ^= 1 << place % 8
        assert matches(bytes(body), told) is False
        body[place] ^= 1 << place % 8
    assert matches(bytes(body), told)


@pytest.mark.parametrize("header", [None, "", "sha-256=:abcd:", "nonsense", "xxxh3-64=:AAAA:"])
def test_a_header_without_the_checksum_says_nothing(header: str | None) -> None:
    assert matches(b"x", header) is None


@pytest.mark.parametrize("header", ["xxh3-64=:AAAAAA==:", "sha-256=:abcd:, xxh3-64=:AAAA:", "xxh3-64=::"])
def test_another_checksum_does_not_match(header: str) -> None:
    assert matches(b"x", header) is False
