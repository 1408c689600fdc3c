"""A real Chromium that looks at pages: what it complains of, and what axe finds on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parent / "vendor/axe-core-4.14.1/axe.min.js"
# No sandbox: tests may run as root. Nothing in the background: it would look like our pages' own requests.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
RUN_AXE = "axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify(found.violations))"


@contextmanager
def chromium() -> Iterator[Any]:
    """The installed browser; the test is skipped where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed (Debian's package is called chromium)")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A tab whose console, errors and requests are written down."""

    def __init__(self, context: Any, site: str) -> None:
        self._context = context
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._opened)
        self.page.on("request", lambda request: self._asked(request.url, site))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def _opened(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str, site: str) -> None:
        if not url.startswith((site, "data:")):
            self.complaints.append(f"request to the outside: {url}")

    def serious(self) -> list[str]:
        """What axe finds that keeps people out, with the first place of each."""
        # By the debugger: the page itself runs no script that is not a file of the server.
        session = self._context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": AXE.read_text()})
        asked = {"expression": RUN_AXE, "awaitPromise": True, "returnByValue": True}
        found = json.loads(session.send("Runtime.evaluate", asked)["result"]["value"])
        return [
            f"{item['id']}: {item['nodes'][0]['html']}"
            for item in found
            if item["impact"] in ("serious", "critical")
        ]

    def is_too_wide(self) -> bool:
        """Whether somebody must scroll sideways to read the page."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
