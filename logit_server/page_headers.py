"""Headers that keep browsers from doing more with an answer than to show it."""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]

ON_ALL: tuple[Header, ...] = ((b"x-content-type-options", b"nosniff"),)
"""On every answer: no guessing of types."""

_CLOSED = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_CSP = b"content-security-policy"


def page_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """What is added to an answer with these headers: to pages, unless their route has a policy of its own."""
    if not _is_page(headers):
        return ()
    policy = () if _CSP in dict(headers) else ((_CSP, _CLOSED),)
    return (
        *policy,
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )


def _is_page(headers: Iterable[Header]) -> bool:
    for key, value in headers:
        if key == b"content-type":
            return value.startswith(b"text/html")
    return False
