import httpx2
import pytest

from logit_server.page_headers import page_headers

HTML = (b"content-type", b"text/html; charset=utf-8")


@pytest.mark.parametrize(
    "path", ["/v1/caches", "/v1/caches/nope", "/v1/caches/synthetic/views/0/records", "/nothing"]
)
def test_no_answer_is_to_be_guessed_at(path: str, client: httpx2.Client) -> None:
    answer = client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in answer.headers


def test_pages_are_framed_by_nobody_and_tell_nobody_where_they_are(client: httpx2.Client) -> None:
    page = client.get("/docs")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_a_page_takes_scripts_from_its_own_server_alone() -> None:
    policy = dict(page_headers([HTML]))[b"content-security-policy"]
    assert b"script-src 'self';" in policy
    assert b"unsafe" not in policy


def test_a_route_may_have_a_policy_of_its_own() -> None:
    own = (b"content-security-policy", b"default-src 'none'")
    assert b"content-security-policy" not in dict(page_headers([HTML, own]))
