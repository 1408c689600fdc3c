import html
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from cache_builder.format.wire import PROBLEM
from cache_builder.format.wire import ROWS as ROWS_TYPE
from logit_server.run import serving
from logit_server.settings import Settings
from tests.format.test_golden import GOLDEN
from tests.logit_server.web.page_caches import HTML_ID, INVALID_ROW, ROWS, SCRIPT_ID

PAGES = (
    "/",
    "/caches/pages",
    "/caches/odd",
    "/caches/pages/sample?row=0",
    "/caches/odd/sample?row=3",
    "/docs",
    "/problems",
)


@pytest.mark.parametrize("path", [*PAGES, "/caches/nope"])
def test_a_page_runs_and_loads_nothing_but_files_of_the_package(path: str, reader: httpx2.Client) -> None:
    response = reader.get(path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    used = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert all(item.startswith(("/", "#")) and not item.startswith("//") for item in used)
    tags = " ".join(re.findall(r"<[^>]+>", response.text))
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", tags)
    for item in used:
        if item.startswith("/static/"):
            found = reader.get(item)
            assert found.status_code == 200
            assert found.headers["x-content-type-options"] == "nosniff"


def test_programs_find_at_the_root_what_they_found_before(site: str) -> None:
    for accept in ("*/*", "application/json", ""):
        response = httpx2.get(site, headers={"Accept": accept})
        assert response.status_code == 404
        assert "/openapi.json" in response.json()["detail"]


def test_the_overview_says_what_people_ask(reader: httpx2.Client) -> None:
    body = reader.get("/").text
    assert "2 % of the variance" in body
    assert f"{ROWS}" in body
    assert re.search(r"<code>[0-9a-f]{32}</code>", body)
    assert f"kdtrain --cache {reader.base_url}".rstrip("/") + "/v1/caches/pages" in body
    assert "every class is stored by itself" in body  # of the other one


def test_what_others_named_is_shown_as_text(reader: httpx2.Client) -> None:
    for path in (
        "/caches/pages",
        "/caches/pages/sample?row=0",
        "/caches/pages?id=%3Cscript%3E&category=%3Cb%3E",
    ):
        body = reader.get(path).text
        assert "<img src=x" not in body
        assert "<script>alert" not in body
        assert "<b>" not in body
    assert html.escape(HTML_ID) in reader.get("/caches/pages").text
    found = reader.get("/caches/pages", params={"id": SCRIPT_ID}).text
    assert "1 sample of 300" in found


def settled(client: httpx2.Client, path: str) -> str:
    """A page once the teacher's answers are known."""
    deadline = time.monotonic() + 30
    while "data-progress" in (body := client.get(path).text):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return body


def test_a_search_by_doubt_is_paged(reader: httpx2.Client) -> None:
    first = settled(reader, "/caches/pages?order=uncertain")
    assert "Page 1 of 12" in first
    later = re.search(r'rel="next" href="([^"]+)"', first)
    assert later is not None
    assert "order=uncertain" in later[1]
    second = reader.get(html.unescape(later[1])).text
    assert "Page 2 of 12" in second
    shares = [float(share) for share in re.findall(r"<span>([\d.]+) %</span>", first + second)]
    assert len(shares) == 50
    assert shares == sorted(shares)


def test_wrong_answers_are_marked(reader: httpx2.Client) -> None:
    body = settled(reader, "/caches/pages?only=wrong")
    assert body.count('class="tag">wrong') == body.count('<th scope="row"><a') > 0


def test_a_sample_has_its_views_side_by_side(reader: httpx2.Client) -> None:
    body = reader.get("/caches/pages/sample?row=12").text
    assert [f"View {view}</h2>" in body for view in range(5)] == [True] * 4 + [False]
    assert "label</span>" in body
    assert "--data imagefolder:PATH" in body
    assert "marked invalid" in reader.get(f"/caches/pages/sample?row={INVALID_ROW}").text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/caches/nope", 404, "this server has &#39;odd&#39;, &#39;pages&#39;"),
        ("/caches/pages/sample?row=300", 422, "rows 0 to 299"),
        ("/caches/pages/sample?row=0&view=4", 422, "views 0 to 3"),
        ("/caches/pages/sample", 422, "row is missing"),
        ("/caches/pages?page=0", 422, "page"),
        ("/caches/pages?ordr=uncertain", 422, "did you mean order?"),
        ("/?x=1", 422, "this path takes none"),
    ],
)
def test_errors_are_pages_for_who_reads_pages(
    path: str,
    status: int,
    said: str,
    reader: httpx2.Client,
    site: str,
) -> None:
    response = reader.get(path)
    assert response.status_code == status
    assert said in response.text
    assert "<h1>" in response.text
    assert httpx2.get(site + path).headers["content-type"] == PROBLEM


def test_live_figures_count_records(site: str) -> None:
    def live() -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{site}/live.json").json()
        return found

    before = live()["records_served"]
    url = f"{site}/v1/caches/pages"
    httpx2.post(f"{url}/records?view=0", content=bytes(4 * 5), headers={"Content-Type": ROWS_TYPE})
    httpx2.get(f"{url}/views/0/records?start=0&stop=10")
    httpx2.head(f"{url}/views/0/records?start=0&stop=10")
    after = live()
    assert after["records_served"] - before == 15
    assert 0 < after["page_bytes"] <= after["page_budget"]


def test_figures_may_be_kept(site: str) -> None:
    response = httpx2.get(f"{site}/caches/pages/figures.json")
    assert len(response.json()["rates"]) == 4
    tag = {"If-None-Match": response.headers["etag"]}
    assert httpx2.get(f"{site}/caches/pages/figures.json", headers=tag).status_code == 304


def test_libraries_are_kept_for_ever_and_nothing_else_is_served(site: str) -> None:
    library = httpx2.get(f"{site}/static/vendor/uplot-1.6.32/uPlot.iife.min.js")
    assert "immutable" in library.headers["cache-control"]
    assert httpx2.get(f"{site}/static/plots.js").headers["cache-control"] == "no-cache"
    for path in ("/static/", "/static/../html.py", "/static/%2e%2e/html.py", "/static/nope.js"):
        assert httpx2.get(site + path).status_code == 404


@pytest.fixture(scope="module")
def positions() -> Iterator[httpx2.Client]:
    """A client of a server of a cache whose samples have several positions."""
    with (
        serving(Settings(caches=(str(GOLDEN / "v3/ragged.zarr"),), port=0)) as base,
        httpx2.Client(base_url=f"{base}/caches", headers={"Accept": "text/html"}) as opened,
    ):
        yield opened


def test_samples_of_several_positions_are_shown_position_by_position(positions: httpx2.Client) -> None:
    assert positions.get("/ragged").status_code == 200
    assert "View 0, position 1</h2>" in positions.get("/ragged/sample?row=0").text
    refused = positions.get("/ragged?only=wrong")
    assert refused.status_code == 422
    assert "several positions" in refused.text
