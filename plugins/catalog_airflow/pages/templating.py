"""Render templates with all values escaped, and serve the style sheet and scripts."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalog_airflow.page_links import locate_pages
from catalog_airflow.pages.access import Viewer

STATIC = Path(__file__).parent / "static"
FILES = {
    "pages.css": "text/css",
    "theme.js": "text/javascript",
    "pages.js": "text/javascript",
    "map.js": "text/javascript",
    "map_view.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon_dark.svg": "image/svg+xml",
}

router = APIRouter()


@router.get("/static/{name}")
def send_file(name: str) -> FileResponse:
    """Send a static file."""
    if name not in FILES:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
    return FileResponse(STATIC / name, media_type=FILES[name], headers=headers)


TEMPLATES = Path(__file__).parent / "templates"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
    )
)
"""Content-Security-Policy: scripts, styles and images only from this server, and frames only in Airflow."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_url(page: str, **query: object) -> str:
    """Return the address of a page. Empty values are left out of the query."""
    kept = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{locate_pages()}/{page}" + (f"?{urlencode(kept)}" if kept else "")


def render_page(template: str, viewer: Viewer | None, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """Render a template. Without a viewer, the page has no navigation."""
    content = _open_templates().get_template(template).render(viewer=viewer, **values)
    return HTMLResponse(content, status_code=status_code, headers=HEADERS)


@cache
def _open_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["url"] = make_url
    environment.filters |= {
        "time": format_time,
        "share": format_share,
        "number": format_number,
        "duration": format_duration,
        "size": format_size,
        "words": format_words,
    }
    return environment


def format_time(moment: datetime | None) -> str:
    """Format a time to the minute, in UTC as in Airflow's logs."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else "-"


def format_share(share: float | None) -> str:
    """Format a share from 0 to 1 as a whole percentage. Only a share of exactly 1 becomes 100 %."""
    if share is None:
        return "-"
    return f"{min(round(100 * share), 99) if share < 1 else 100} %"


def format_number(number: float | None) -> str:
    """Format a number with thousands separators, and with one decimal if it is small and not an integer."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def format_duration(seconds: float | None) -> str:
    """Format seconds in a readable unit."""
    if seconds is None:
        return "-"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def format_size(size_bytes: int) -> str:
    """Format bytes as kB or MB."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1_000_000 else f"{size_bytes / 1e3:.1f} kB"


def format_words(name: str) -> str:
    """Format an identifier as words."""
    return name.replace("_", " ")
