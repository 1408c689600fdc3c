from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cache_builder.format import ConfigError
from logit_server.run import serving
from logit_server.settings import Settings

LAB, OTHER = "https://lab.example.org", "https://other.example"
ASKING = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.fixture(scope="module")
def base(cache_path: Path) -> Iterator[str]:
    """A server with a token that pages of LAB may read."""
    settings = Settings(caches=(str(cache_path),), port=0, token="secret", cors_origins=(LAB,))
    with serving(settings) as url:
        yield url


def test_pages_of_a_listed_origin_read_answers_and_errors(base: str) -> None:
    for token, status in [("secret", 200), ("wrong", 401)]:
        headers = {"Origin": LAB, "Authorization": f"Bearer {token}"}
        answer = httpx2.get(f"{base}/v1/caches/synthetic", headers=headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == LAB
        assert "X-KDCache-Id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


def test_pages_of_other_origins_read_nothing(base: str, client: httpx2.Client) -> None:
    headers = {"Origin": OTHER, "Authorization": "Bearer secret"}
    for answer in (
        httpx2.get(f"{base}/v1/caches", headers=headers),
        client.get("/v1/caches", headers={"Origin": OTHER}),
        client.options("/v1/caches", headers={"Origin": OTHER} | ASKING),
    ):
        assert "access-control-allow-origin" not in answer.headers


def test_a_browser_may_ask_in_advance_without_a_token(base: str) -> None:
    url = f"{base}/v1/caches/synthetic/records"
    answer = httpx2.options(url, headers={"Origin": LAB} | ASKING)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx2.options(url, headers={"Origin": OTHER} | ASKING).status_code == 400


def test_what_browsers_ask_in_advance_is_counted(base: str) -> None:
    def counted() -> list[float]:
        text = httpx2.get(f"{base}/metrics", headers={"Authorization": "Bearer secret"}).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return [
            sum(
                sample.value
                for sample in samples
                if sample.name == "kdcache_requests_total"
                and sample.labels == {"route": "unmatched", "status": status}
            )
            for status in ("200", "400")
        ]

    before = counted()
    httpx2.options(f"{base}/v1/caches", headers={"Origin": LAB} | ASKING)
    httpx2.options(f"{base}/v1/caches", headers={"Origin": OTHER} | ASKING)
    assert counted() == [before[0] + 1, before[1] + 1]


@pytest.mark.parametrize(
    "origin", ["lab.example.org", "https://lab.example.org/", "https://a/b", "https://", "null"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="no origin"):
        Settings.checked(cors_origins=(origin,))
