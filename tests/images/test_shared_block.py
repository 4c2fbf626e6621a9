"""Pass pixels through shared memory."""

from multiprocessing.sharedctypes import RawArray

import numpy as np

from jobs.failures import DecodeReason
from jobs.images.decode import DecodeFailure, PreparedImage
from jobs.images.shared_block import SharedBlock


def make_prepared(seed: int, sides: tuple[int, ...]) -> PreparedImage:
    random = np.random.default_rng(seed)
    inputs = tuple(random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides)
    return PreparedImage(inputs, width=40 + seed, height=50, seconds=0.5)


def test_pixels_are_copied_out_of_the_block() -> None:
    block = SharedBlock()
    images = [make_prepared(seed, (8, 12)) for seed in range(3)]
    stored = block.store(images)
    assert not any(isinstance(pixels, np.ndarray) for image in stored for pixels in image.inputs)
    loaded = block.load(stored)
    # The next group must not change pixels that were loaded before.
    block.store([make_prepared(9, (12, 12))])
    for image, original in zip(loaded, images, strict=True):
        assert (image.width, image.height, image.seconds) == (original.width, original.height, original.seconds)
        for pixels, expected in zip(image.inputs, original.inputs, strict=True):
            np.testing.assert_array_equal(pixels, expected)


def test_what_does_not_fit_goes_through_the_pipe() -> None:
    block = SharedBlock(RawArray("B", 8 * 8 * 3))
    images = [make_prepared(seed, (8,)) for seed in range(2)]
    stored = block.store(images)
    assert [isinstance(image.inputs[0], np.ndarray) for image in stored] == [False, True]
    for image, original in zip(block.load(stored), images, strict=True):
        np.testing.assert_array_equal(image.inputs[0], original.inputs[0])


def test_other_results_stay_as_they_are() -> None:
    block = SharedBlock()
    results = [DecodeFailure(DecodeReason.EMPTY, "0 bytes", 0.0), b"a thumbnail"]
    assert block.load(block.store(results)) == results
