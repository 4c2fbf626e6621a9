"""Render templates with all values escaped, and serve the style sheet and scripts."""

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalog_airflow.page_links import locate_pages
from catalog_airflow.pages.access import Viewer
from jobs.charts import OTHER_COLOR
from jobs.retrain.gates.gate_table import tabulate_gates
from jobs.run_titles import title_run
from jobs.units import (
    format_duration,
    format_number,
    format_percent,
    format_share,
    format_size,
    format_stored_time,
    format_time,
    format_words,
)

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: MEDIA_TYPES[path.suffix] for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES}

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


def make_url(page: str, /, **query: object) -> str:
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
    environment.globals |= {"url": make_url, "tabulate_gates": tabulate_gates, "other_color": OTHER_COLOR}
    environment.filters |= {
        "time": format_time,
        "stored_time": format_stored_time,
        "share": format_share,
        "number": format_number,
        "duration": format_duration,
        "size": format_size,
        "words": format_words,
        "run_title": title_run,
        "percent": format_percent,
    }
    return environment
