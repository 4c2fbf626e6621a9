"""Draw a search as one image: the query on the left, the hits in rows on the right."""

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from jobs.database.search import ProductHit
from jobs.errors import PermanentError
from jobs.images.decode import DecodedImage, DecodeLimits, decode_image

ReadImage = Callable[[int], bytes]
"""Read an image by its id. Raises PermanentError or OSError if it is not available."""

IMAGE_SIZE = (210, 280)
CAPTION_HEIGHT = 64
MARGIN = 12
GAP = 20
COLUMNS = 5
MAX_PIXELS = 100_000_000

PAPER, CARD, EMPTY = "#f4f2ee", "#ffffff", "#dedbd5"
INK, MUTED, ACCENT = "#22262b", "#7a7d82", "#2f6f62"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SearchQuery:
    """A text, or the image of a product or file with ``text`` below it."""

    text: str
    image_id: int | None = None


@dataclass(frozen=True)
class _Pen:
    """A canvas with fonts."""

    canvas: Image.Image
    draw: ImageDraw.ImageDraw
    large: Font
    medium: Font
    small: Font


def render_contact_sheet(query: SearchQuery, hits: Sequence[ProductHit], read_image: ReadImage) -> Image.Image:
    """Draw a query and its hits, best first, each with rank, similarity, name and category.

    An image that cannot be shown becomes a gray tile with the reason.
    """
    columns, rows = min(COLUMNS, max(1, len(hits))), max(1, -(-len(hits) // COLUMNS))
    tile_width, tile_height = IMAGE_SIZE[0] + GAP, IMAGE_SIZE[1] + CAPTION_HEIGHT + GAP
    left = GAP + tile_width
    canvas = Image.new("RGB", (left + columns * tile_width, GAP + rows * tile_height), PAPER)
    pen = _Pen(canvas, ImageDraw.Draw(canvas), *(ImageFont.load_default(points) for points in (26, 16, 13)))
    _draw_query(pen, query, read_image)
    for position, hit in enumerate(hits):
        row, column = divmod(position, COLUMNS)
        _draw_hit(pen, (left + column * tile_width, GAP + row * tile_height), position + 1, hit, read_image)
    if not hits:
        pen.draw.text((left, GAP + MARGIN), "nothing found", MUTED, pen.medium)
    return canvas


def _draw_query(pen: _Pen, query: SearchQuery, read_image: ReadImage) -> None:
    width, height = IMAGE_SIZE
    pen.draw.rectangle((GAP, GAP, GAP + width - 1, GAP + height + CAPTION_HEIGHT - 1), fill=INK)
    left, room = GAP + MARGIN, width - 2 * MARGIN
    if query.image_id is None:
        lines = _wrap(query.text, pen.large, room, limit=8)
        pen.draw.multiline_text((left, GAP + MARGIN), "\n".join(lines), CARD, pen.large, spacing=8)
    else:
        pen.canvas.paste(_load_tile(query.image_id, read_image, pen.small), (GAP, GAP))
        lines = _wrap(query.text, pen.medium, room, limit=2)
        pen.draw.multiline_text((left, GAP + height + MARGIN), "\n".join(lines), CARD, pen.medium)


def _draw_hit(pen: _Pen, corner: tuple[int, int], rank: int, hit: ProductHit, read_image: ReadImage) -> None:
    left, top = corner
    width, height = IMAGE_SIZE
    pen.draw.rectangle((left, top, left + width - 1, top + height + CAPTION_HEIGHT - 1), fill=CARD)
    pen.canvas.paste(_load_tile(hit.image_id, read_image, pen.small), corner)
    pen.draw.rectangle((left, top, left + 34, top + 26), fill=ACCENT)
    pen.draw.text((left + 17, top + 13), str(rank), CARD, pen.medium, anchor="mm")
    name = _shorten(hit.display_name or hit.product_id, pen.medium, width - 2 * MARGIN)
    pen.draw.text((left + MARGIN, top + height + MARGIN), name, INK, pen.medium)
    score = f"{hit.similarity:.3f}"
    room = width - 3 * MARGIN - int(pen.small.getlength(score))
    category = _shorten(hit.category or "no category", pen.small, room)
    line = top + height + MARGIN + 26
    pen.draw.text((left + MARGIN, line), category, MUTED, pen.small)
    pen.draw.text((left + width - MARGIN, line), score, ACCENT, pen.small, anchor="ra")


def _load_tile(image_id: int, read_image: ReadImage, font: Font) -> Image.Image:
    """Return the image scaled to `IMAGE_SIZE`, or a gray tile with the reason."""
    try:
        content = read_image(image_id)
    except (PermanentError, OSError) as error:
        return _make_gray_tile(f"no image: {error}", font)
    decoded = decode_image(content, DecodeLimits(MAX_PIXELS, 1, max(IMAGE_SIZE)))
    if not isinstance(decoded, DecodedImage):
        return _make_gray_tile(f"no image: {decoded.reason.replace('_', ' ')}", font)
    return ImageOps.pad(Image.fromarray(decoded.pixels), IMAGE_SIZE, Image.Resampling.LANCZOS, color=CARD)


def _make_gray_tile(reason: str, font: Font) -> Image.Image:
    width, height = IMAGE_SIZE
    tile = Image.new("RGB", IMAGE_SIZE, EMPTY)
    lines = "\n".join(_wrap(reason, font, width - 2 * MARGIN, limit=8))
    ImageDraw.Draw(tile).multiline_text((width / 2, height / 2), lines, MUTED, font, anchor="mm", align="center")
    return tile


def _wrap(text: str, font: Font, width: int, limit: int) -> list[str]:
    """Break a text into at most ``limit`` lines of ``width`` pixels. Shorten the last line if the text does not fit."""
    characters = max(1, int(width / font.getlength("n")))
    lines = textwrap.wrap(_clean(text), characters) or [""]
    if len(lines) > limit:
        lines = [*lines[: limit - 1], " ".join(lines[limit - 1 :])]
    return [_shorten(line, font, width) for line in lines]


def _shorten(text: str, font: Font, width: int) -> str:
    """Cut a text to at most ``width`` pixels, with an ellipsis if it was cut."""
    text = _clean(text)
    if font.getlength(text) <= width:
        return text
    # Longer texts cannot fit, and measuring a very long one is slow.
    text = text[:width]
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _clean(text: str) -> str:
    """Return one line of printable characters, without accents, which Pillow's built-in font lacks."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(letter for letter in letters if letter.isprintable() and not unicodedata.combining(letter))
