"""Open pages in Debian's Chromium, logged in to Airflow, and record external requests and script errors."""

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
    """A browser window. ``external`` contains the URLs of requests that left the machine, ``errors`` script errors."""

    page: Page
    url: str
    external: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to one of the catalog's pages, without Airflow's frame."""
        self.page.goto(f"{self.url}/catalog/{path}")

    def go_home(self) -> None:
        """Go to Airflow's home page."""
        self.page.goto(self.url)

    def resize(self, width: int) -> None:
        """Change the width of the window."""
        self.page.set_viewport_size({"width": width, "height": 900})

    def fill_login(self, username: str, password: str) -> None:
        """Log in with the form of Airflow that the window shows."""
        self.page.fill("input[name=username]", username)
        self.page.fill("input[name=password]", password)
        self.page.keyboard.press("Enter")

    def take_records(self) -> tuple[list[str], list[str]]:
        """Wait for the last page's requests, return the contents of `external` and `errors`, and clear both."""
        self.page.wait_for_load_state("networkidle")
        records = self.external.copy(), self.errors.copy()
        self.external.clear()
        self.errors.clear()
        return records

    def choose_theme(self, theme: str) -> None:
        """Set the theme as Airflow's menu does."""
        self.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)

    def record(self, request: Request) -> None:
        """Record a request that leaves the machine."""
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname not in LOOPBACK:
            self.external.append(request.url)


@contextmanager
def open_browser(url: str, username: str, password: str) -> Iterator[PagesBrowser]:
    """Open a window and log in with Airflow's form."""
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, the usual user in containers.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        browser = PagesBrowser(page, url)
        page.context.on("request", browser.record)
        page.on("pageerror", lambda error: browser.errors.append(str(error)))
        page.goto(url)
        browser.fill_login(username, password)
        page.get_by_role("link", name="Catalog", exact=True).wait_for()
        yield browser
        chromium.close()
