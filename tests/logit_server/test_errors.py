import json

import pytest
from starlette.exceptions import HTTPException

from cache_builder.format import CorruptCacheError, KDCacheError, UnknownSampleError, errors
from logit_server import errors as server_errors
from logit_server.errors import STATUSES, error_response, shorten, status_of


def every_error() -> list[type[Exception]]:
    found = {**vars(errors), **vars(server_errors)}.values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, KDCacheError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[Exception]) -> None:
    error = kind(["a"], 1) if kind is UnknownSampleError else kind("why")
    assert 400 <= status_of(error) < 600
    body = json.loads(bytes(error_response(error).body))
    assert body == {"error": kind.__name__, "detail": str(error)}


def test_a_class_that_is_not_named_has_the_status_of_its_parent() -> None:
    class WorseError(CorruptCacheError):
        pass

    assert status_of(WorseError("x")) == STATUSES[CorruptCacheError] == 500


def test_what_nobody_foresaw_keeps_its_message_to_itself() -> None:
    response = error_response(RuntimeError("the password is hunter2"))
    assert response.status_code == 500
    assert b"hunter2" not in bytes(response.body)


def test_errors_are_never_stored_and_overload_says_when_to_return() -> None:
    response = error_response(server_errors.OverloadedError("full"))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["cache-control"] == "no-store"


def test_http_errors_keep_their_headers() -> None:
    response = error_response(HTTPException(405, headers={"Allow": "GET"}))
    assert response.headers["allow"] == "GET, HEAD"
    assert json.loads(bytes(response.body))["detail"] == "this path takes GET, HEAD only"


def test_head_is_allowed_where_get_is() -> None:
    for allowed, expected in (("POST", "POST"), ("GET, HEAD", "GET, HEAD"), ("POST,GET", "POST, GET, HEAD")):
        assert error_response(HTTPException(405, headers={"Allow": allowed})).headers["allow"] == expected


@pytest.mark.parametrize("value", ["x" * 10_000_000, list(range(10_000_000)), b"y" * 10_000_000, 10**1000])
def test_values_in_errors_are_short_whatever_their_size(value: object) -> None:
    assert len(shorten(value)) <= 60
