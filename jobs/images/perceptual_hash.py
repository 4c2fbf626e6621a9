"""Hash how an image looks. Resized or recompressed copies differ in only a few of the 256 bits."""

import imagehash
import numpy as np
from PIL import Image

HASH_SIDE = 16
"""Side of the square of frequencies in the hash, which has one bit for each: 256 in total."""
DECODED_SIDE_PIXELS = 256
"""Length of the shorter side to decode to. Shrinking to it changes at most 4 bits of the hash."""


def perceptual_hash(pixels: np.ndarray) -> bytes:
    """Hash an upright RGB image, uint8 [height, width, 3], to 32 bytes.

    The bits are the signs of the lowest frequencies (the DCT hash of ImageHash). In our measurements, copies differed
    in at most 32 bits, and different clothes on the same background in at least 38.
    """
    return np.packbits(imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash).tobytes()
