"""Show the map of the catalog, and send its points to the script that draws them."""

import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from catalog_airflow.pages.access import AnyViewer
from catalog_airflow.pages.catalog_access import read_catalog
from catalog_airflow.pages.templating import make_url, render_page
from jobs.charts import OTHER_COLOR, choose_colors
from jobs.database.images import find_image_object
from jobs.database.maps import MapDrawing, MapVersion, count_map_points, read_map_drawing, read_map_version
from jobs.database.products import list_categories

router = APIRouter()

FORMAT = 1
"""Version of the format of `encode_points`, part of the ETag."""
NO_CATEGORY, NO_CONFIDENCE, LABELED = 65535, 255, 101


@router.get("/map")
def show_map(viewer: AnyViewer) -> HTMLResponse:
    """Show the map, or how to get one."""
    with read_catalog() as connection:
        version = read_map_version(connection)
        points = count_map_points(connection, version.space_id) if version else 0
    return render_page("map.html", viewer, version=version, points=points)


@router.get("/map/points")
def send_points(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Send all points of the map. A browser asks each time, and gets them again only if they have changed."""
    with read_catalog() as connection:
        version = read_map_version(connection)
    if version is None:
        raise HTTPException(404, "There is no map yet.")
    etag = f'"{FORMAT}-{hashlib.sha256(repr(version).encode()).hexdigest()[:20]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    headers["Content-Encoding"] = "gzip"
    # Requests for a new version wait for the first of them, and then find its points in memory.
    with _LOCK:
        points = _read_points(version)
    return Response(points, media_type="application/octet-stream", headers=headers)


@router.get("/map/image/{image_id}")
def open_image(image_id: int) -> RedirectResponse:
    """Redirect to the product of a point. The map does not know product ids, which would double its size."""
    with read_catalog() as connection:
        image = find_image_object(connection, image_id) if 0 <= image_id < 2**63 else None
    if image is None:
        raise HTTPException(404, f"There is no image {image_id} in the catalog.")
    return RedirectResponse(make_url("product", id=image.product_id), 303)


_LOCK = Lock()


@lru_cache(maxsize=1)
def _read_points(version: MapVersion) -> bytes:
    with read_catalog() as connection:
        colors = choose_colors(list_categories(connection))
        return gzip.compress(encode_points(read_map_drawing(connection, version), colors), 6)


def encode_points(drawing: MapDrawing, colors: Mapping[str, int]) -> bytes:
    """Encode points as columns, all little-endian, after a JSON header and its length.

    The columns are the differences of image ids (uint32), x and y in hundredths (int16), the index of the category
    (uint16) and the confidence in percent (uint8).
    """
    # A switch between reading the colors and the points can bring categories that have no color yet.
    categories = [{"name": name, "series": colors.get(name, OTHER_COLOR)} for name in drawing.categories]
    header = json.dumps({"count": len(drawing.image_ids), "categories": categories}).encode()
    header += b" " * (-len(header) % 4)
    # As elsewhere on the pages, only a confidence of exactly 1 becomes 100 %.
    percent = np.where(drawing.confidence < 1, np.minimum(np.round(100 * drawing.confidence), 99), 100)
    confidence = np.where(np.isnan(drawing.confidence), NO_CONFIDENCE, percent)
    columns = (
        np.diff(drawing.image_ids, prepend=0).astype("<u4"),
        drawing.positions[:, 0].astype("<i2"),
        drawing.positions[:, 1].astype("<i2"),
        drawing.category.astype("<u2"),
        np.where(drawing.is_labeled, LABELED, confidence).astype(np.uint8),
    )
    return b"".join([len(header).to_bytes(4, "little"), header, *(column.tobytes() for column in columns)])
