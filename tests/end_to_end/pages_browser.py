"""Debian's Chromium, logged in at an Airflow, which notes whatever leaves the machine or goes wrong in a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_SECONDS = 120.0
LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass
class PagesBrowser:
    """One window; ``outside`` are addresses that were asked for elsewhere, ``faults`` what scripts complained of."""

    page: Page
    url: str
    outside: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to one of our pages, outside of Airflow's frame."""
        self.page.goto(f"{self.url}/catalog/{path}")
        self.page.wait_for_load_state("networkidle")

    def go_home(self) -> None:
        """Go to Airflow's own first page."""
        self.page.goto(self.url)

    def take_notes(self) -> tuple[list[str], list[str]]:
        """Return what was noted in `outside` and `faults` since the last call."""
        notes = self.outside.copy(), self.faults.copy()
        self.outside.clear()
        self.faults.clear()
        return notes

    def choose_theme(self, theme: str) -> None:
        """What a switch in Airflow's own menu leaves behind."""
        self.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)

    def note(self, request: Request) -> None:
        """Remember a request that leaves the machine."""
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOOPBACK:
            self.outside.append(request.url)


@contextmanager
def open_browser(url: str, username: str, password: str) -> Iterator[PagesBrowser]:
    """A window that has logged in by Airflow's own form."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as whom containers run.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        browser = PagesBrowser(page, url)
        page.context.on("request", browser.note)
        page.on("pageerror", lambda error: browser.faults.append(str(error)))
        page.goto(url)
        page.fill("input[name=username]", username)
        page.fill("input[name=password]", password)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Catalog", exact=True).wait_for()
        yield browser
        chromium.close()
