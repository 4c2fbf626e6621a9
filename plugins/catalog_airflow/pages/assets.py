"""Our styles and scripts, served from here alone."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

STATIC = Path(__file__).parent / "static"
FILES = {
    "pages.css": "text/css",
    "theme.js": "text/javascript",
    "keys.js": "text/javascript",
    "progress.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon_dark.svg": "image/svg+xml",
}

router = APIRouter()


@router.get("/static/{name}")
def send_asset(name: str) -> FileResponse:
    """One of the files that pages name."""
    if name not in FILES:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
    return FileResponse(STATIC / name, media_type=FILES[name], headers=headers)
