"""Why requests are refused, as it is counted and logged."""

from __future__ import annotations

from logit_server.errors import (
    BusyPeerError,
    ForbiddenError,
    HeaderTooLargeError,
    HostError,
    MalformedRequestError,
    OverloadedError,
    SlowClientError,
    TargetTooLongError,
    TooLargeError,
    UnauthorizedError,
)

SLOW_READER = "slow_reader"
"""A client does not take its answer; it gets no error, because it reads nothing."""

_BY_ERROR: dict[type[Exception], str] = {
    BusyPeerError: "peer",
    ForbiddenError: "scope",
    HeaderTooLargeError: "header_too_large",
    HostError: "host",
    MalformedRequestError: "malformed",
    SlowClientError: "slow_client",
    TargetTooLongError: "target_too_long",
    TooLargeError: "too_large",
    UnauthorizedError: "no_token",
}

REASONS = (*OverloadedError.KINDS, *sorted(_BY_ERROR.values()), SLOW_READER)


def reason_of(error: Exception) -> str | None:
    """Why an error refuses a request; None for one that answers what was asked."""
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return error.kind if isinstance(error, OverloadedError) else None
