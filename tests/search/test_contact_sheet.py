import io

import pytest
from PIL import Image

from jobs.database.search import ProductHit
from jobs.errors import PermanentError, RetryableError
from jobs.search.contact_sheet import COLUMNS, EMPTY, IMAGE_SIZE, SearchQuery, render_contact_sheet

COLORS = {"red.jpg": (200, 30, 30), "green.jpg": (30, 160, 60), "blue.jpg": (40, 60, 200)}
NAMES = (*COLORS, "missing.jpg", "broken.jpg")
"""Image ids are positions in this tuple."""

WIDTH, HEIGHT = IMAGE_SIZE


def read_image(image_id: int) -> bytes:
    object_key = NAMES[image_id]
    if object_key == "missing.jpg":
        raise PermanentError("s3://shop/missing.jpg: no such object")
    if object_key == "broken.jpg":
        return b"<html>"
    return draw_image((300, 400), COLORS[object_key])


def draw_image(size: tuple[int, int], color: tuple[int, int, int]) -> bytes:
    image = io.BytesIO()
    Image.new("RGB", size, color).save(image, "JPEG", quality=100, subsampling=0)
    return image.getvalue()


def make_hit(object_key: str, name: str | None = "A name", category: str | None = "dress") -> ProductHit:
    return ProductHit("sku-1", name, category, 0.5, NAMES.index(object_key), object_key)


def read_tile(sheet: Image.Image, position: int) -> str:
    """Return the color of the lower part of the image at a position; 0 is the query."""
    row, column = divmod(position - 1, COLUMNS) if position else (0, -1)
    left, top = 20 + (column + 1) * (WIDTH + 20), 20 + row * (HEIGHT + 84)
    pixel = sheet.getpixel((left + WIDTH // 2, top + HEIGHT - 10))
    assert isinstance(pixel, tuple)
    known = {"gray": bytes.fromhex(EMPTY[1:]), **COLORS}
    return min(known, key=lambda name: sum(abs(a - b) for a, b in zip(known[name], pixel, strict=True)))


def test_images_are_in_the_order_of_the_hits() -> None:
    keys = ["red.jpg", "green.jpg", "blue.jpg"] * 2
    sheet = render_contact_sheet(SearchQuery("three colors"), [make_hit(key) for key in keys], read_image)
    assert [read_tile(sheet, position + 1) for position in range(6)] == keys


def test_the_image_of_the_query_is_first() -> None:
    sheet = render_contact_sheet(SearchQuery("sku-1", NAMES.index("blue.jpg")), [make_hit("red.jpg")], read_image)
    assert read_tile(sheet, 0) == "blue.jpg"


def test_only_an_image_that_cannot_be_shown_is_a_gray_tile() -> None:
    hits = [make_hit("missing.jpg"), make_hit("broken.jpg"), make_hit("red.jpg")]
    sheet = render_contact_sheet(SearchQuery("q", NAMES.index("missing.jpg")), hits, read_image)
    assert [read_tile(sheet, position) for position in range(4)] == ["gray", "gray", "gray", "red.jpg"]


def test_an_unavailable_bucket_ends_the_drawing() -> None:
    def fail(_: int) -> bytes:
        raise RetryableError("cannot reach the bucket")

    with pytest.raises(RetryableError, match="cannot reach the bucket"):
        render_contact_sheet(SearchQuery("q"), [make_hit("red.jpg")], fail)


def test_a_large_image_is_shrunk() -> None:
    image = draw_image((4500, 6000), COLORS["red.jpg"])
    sheet = render_contact_sheet(SearchQuery("q"), [make_hit("red.jpg")], lambda _: image)
    assert read_tile(sheet, 1) == "red.jpg"


@pytest.mark.parametrize(
    "text",
    ["", "word " * 200, "x" * 5000, "スカート 😀", "two\nlines\ttab", "\u202eright to left", "e\u0301\0\x1b[31m"],
)
def test_any_text_stays_within_its_tile(text: str) -> None:
    plain = render_contact_sheet(SearchQuery("q"), [make_hit("red.jpg", "n", "c")], read_image)
    sheet = render_contact_sheet(SearchQuery(text), [make_hit("red.jpg", text, text)], read_image)
    assert sheet.size == plain.size
    margin = (0, 0, sheet.width, 20), (0, sheet.height - 20, sheet.width, sheet.height)
    assert all(len(sheet.crop(box).getcolors() or []) == 1 for box in margin)
    gap = (20 + WIDTH, 0, 40 + WIDTH, sheet.height)
    assert len(sheet.crop(gap).getcolors() or []) == 1


def test_no_hits_still_give_a_sheet() -> None:
    assert render_contact_sheet(SearchQuery("nothing like it"), [], read_image).width > 2 * WIDTH
