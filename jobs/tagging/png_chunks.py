"""PNG files without what does not belong to their picture.

Texts and colour profiles may unpack to gigabytes, and a wrong checksum in any chunk ends Pillow's reading; neither says
anything of the pixels.
"""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
"""Kept as they are: if they are wrong, the picture is."""
KEPT_IF_WHOLE = {b"eXIf"}
"""The orientation."""


def keep_picture(png: bytes) -> bytes:
    """Leave out all chunks that are not the picture; what is cut off stays cut off."""
    parts, position = [SIGNATURE], len(SIGNATURE)
    while position + 8 <= len(png):
        (length,), name = struct.unpack_from(">I", png, position), png[position + 4 : position + 8]
        end = position + 12 + length
        if name in PICTURE_CHUNKS or (name in KEPT_IF_WHOLE and _is_whole(png[position + 4 : end])):
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _is_whole(chunk: bytes) -> bool:
    """Whether a chunk from its name to its checksum has the right one."""
    return len(chunk) >= 8 and zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:])
