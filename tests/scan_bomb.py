"""A valid JPEG that is small and takes seconds to decode."""

import io
import re

from PIL import Image


def make_scan_bomb(scans: int) -> bytes:
    """A progressive JPEG of one colour whose last scan is repeated; each costs a pass over the whole photo."""
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 1600), "navy").save(buffer, "JPEG", progressive=True)
    jpeg = buffer.getvalue()
    last = [found.start() for found in re.finditer(rb"\xff\xda", jpeg)][-1]
    return jpeg[:-2] + jpeg[last:-2] * scans + jpeg[-2:]
