"""Labelled photos that differ in their colour alone: a task that a tiny model learns in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from jobs.training.labelled_photos import LabelledPhoto, Split

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "yellow": (230, 230, 30),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}


def write_coloured_photos(folder: Path, colours: list[str], train: int, test: int, side: int = 48) -> Split:
    """So many noisy photos of each colour."""
    folder.mkdir()
    photos = {
        name: [_write_photo(folder / f"{name}_{number}.png", name, side, number) for number in range(train + test)]
        for name in colours
    }
    return Split(
        tuple(photo for of_colour in photos.values() for photo in of_colour[:train]),
        tuple(photo for of_colour in photos.values() for photo in of_colour[train:]),
    )


def _write_photo(path: Path, colour: str, side: int, number: int) -> LabelledPhoto:
    noise = np.random.default_rng([number, *colour.encode()]).normal(0, 12, (side, side, 3))
    Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)).save(path)
    return LabelledPhoto(path, colour, f"a {colour} shirt", path.name)
