"""The pages in a real headless Chromium."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.logit_server.web.browser import Watched, chromium
from tests.logit_server.web.page_caches import HTML_ID, ROWS

pytestmark = pytest.mark.slow

PAGES = ("/", "/caches/pages", "/caches/pages/sample?row=0", "/caches/odd", "/caches/odd/sample?row=3")
SCREENS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "dark", "viewport": {"width": 320, "height": 640}},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(params=SCREENS)
def watched(request: pytest.FixtureRequest, browser: Any, site: str) -> Iterator[Watched]:
    """A tab on each kind of screen."""
    context = browser.new_context(base_url=site, **SCREENS[request.param])
    yield Watched(context, site)
    context.close()


@pytest.fixture
def desk(browser: Any, site: str) -> Iterator[Watched]:
    """A tab on one screen, which may write to the clipboard."""
    context = browser.new_context(base_url=site, permissions=["clipboard-read", "clipboard-write"])
    yield Watched(context, site)
    context.close()


def test_every_page_is_sound_on_every_screen(watched: Watched) -> None:
    for path in PAGES:
        watched.page.goto(path, wait_until="networkidle" if "row" in path else "load")
        if path == "/caches/pages":
            watched.page.wait_for_selector(".plot canvas")
            assert watched.page.locator(".plot canvas").count() == 5
        assert not watched.is_too_wide(), path
        assert watched.serious() == [], path
    assert watched.complaints == []


def test_the_overview_is_alive_and_its_command_can_be_copied(desk: Watched) -> None:
    page = desk.page
    page.goto("/")
    page.wait_for_selector('[data-live][data-ready="true"]')
    assert page.locator("[data-state]").inner_text() == "ready"
    page.get_by_role("button", name="Copy the command for pages").click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("kdtrain --cache http://")
    assert copied == page.locator(".command code").first.inner_text()
    assert desk.complaints == []


def test_samples_are_found_and_opened_by_keyboard(desk: Watched) -> None:
    page = desk.page
    page.goto("/caches/pages")
    page.get_by_label("Id contains").focus()
    page.keyboard.type("left/0005")
    page.keyboard.press("Enter")
    page.get_by_text(f"1 sample of {ROWS}").wait_for()
    page.get_by_role("link", name="left/0005.jpg").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/sample?row=5")
    assert page.locator("h1").inner_text() == "left/0005.jpg"
    assert page.locator("section.view").count() == 4
    assert page.locator("section.view .tag.good").count() > 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert desk.complaints == []


def test_a_search_by_doubt_waits_for_the_answers(desk: Watched) -> None:
    page = desk.page
    page.goto("/caches/pages")
    page.get_by_label("Show").select_option("wrong")
    page.get_by_label("Order").select_option("uncertain")
    page.get_by_role("button", name="Search").click()
    page.locator(".samples .tag").first.wait_for()
    assert page.locator("[data-progress]").count() == 0
    assert desk.complaints == []


def test_names_that_are_html_are_text(desk: Watched) -> None:
    page = desk.page
    page.goto("/caches/pages")
    page.get_by_role("link", name=HTML_ID).click()
    assert page.locator("h1").inner_text() == HTML_ID
    assert page.locator("main img").count() == 0
    assert page.locator("section.view").first.locator("b").count() == 0
    assert desk.complaints == []


def test_the_documentation_needs_nothing_from_outside(desk: Watched) -> None:
    page = desk.page
    page.goto("/docs")
    page.locator(".opblock-summary").first.wait_for()
    # A button within a button is Swagger UI's own.
    assert [found for found in desk.serious() if not found.startswith("nested-interactive")] == []
    page.get_by_text("/v1/caches", exact=True).first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert desk.complaints == []
