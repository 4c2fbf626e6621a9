from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from jobs.retrain.train.augmentation import GRAY, NUMBERS, augment, draw_numbers
from jobs.retrain.train.requests import STRONG, Augmentation

NOISE = torch.randint(0, 256, (6, 3, 12, 12), generator=torch.Generator().manual_seed(1))
PIXELS = functional.interpolate(NOISE.float(), 64, mode="bicubic").clamp(0, 255).to(torch.uint8)
NONE = Augmentation(smallest_crop=1.0, rotation_degrees=0, color_jitter=0)
SIDE = 56
FLIP, AREA, RATIO, X, Y, ANGLE = range(6)
MIDDLE = torch.full((6, NUMBERS), 0.5)


def set_numbers(**values: float) -> torch.Tensor:
    """Return numbers that change nothing, except those named by their column."""
    numbers = MIDDLE.clone()
    for name, value in values.items():
        numbers[:, int(name.removeprefix("column_"))] = value
    return numbers


def measure_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the mean difference in the inner part, where both fill methods agree."""
    inner = slice(8, -8)
    return (one.float() - other.float())[..., inner, inner].abs().mean().item()


@pytest.mark.parametrize(
    ("expect", "column", "value", "augmentation"),
    [
        (lambda images: images, FLIP, 0.5, NONE),
        (transforms.horizontal_flip, FLIP, 0.2, NONE),
        (lambda images: transforms.rotate(images, 10, transforms.InterpolationMode.BILINEAR), ANGLE, 1.0, STRONG),
        (lambda images: transforms.rotate(images, -10, transforms.InterpolationMode.BILINEAR), ANGLE, 0.0, STRONG),
    ],
)
def test_flip_and_rotation_are_those_of_torchvision(
    expect: Callable[[torch.Tensor], torch.Tensor], column: int, value: float, augmentation: Augmentation
) -> None:
    plain = replace(augmentation, smallest_crop=1.0, color_jitter=0, erasing=0)
    numbers = set_numbers(**{f"column_{column}": value, f"column_{RATIO}": 0.495})
    output = augment(PIXELS, numbers, plain, 64)
    assert measure_difference(output, expect(PIXELS)) < 1.5
    assert measure_difference(output, expect(PIXELS.flip(2))) > 10


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.0, 0.0), (0.25, 1.0)])
def test_a_crop_is_that_of_torchvision(x: float, y: float) -> None:
    """The crop has a quarter of the area: 32 of 64 pixels, with a ratio of nearly 1."""
    plain = replace(NONE, smallest_crop=0.25)
    numbers = set_numbers(**{f"column_{AREA}": 0.0, f"column_{RATIO}": 0.495, f"column_{X}": x, f"column_{Y}": y})
    output = augment(PIXELS, numbers, plain, SIDE)
    expected = transforms.resized_crop(PIXELS, round(32 * y), round(32 * x), 32, 32, [SIDE, SIDE], antialias=False)
    assert output.shape == (6, 3, SIDE, SIDE)
    assert measure_difference(output, expected) < 1.5


def test_crops_have_the_given_areas() -> None:
    """A ramp shows where a crop lies: the difference of its ends is its width."""
    ramp = torch.arange(200, dtype=torch.uint8).expand(500, 3, 200, 200)
    both = [
        augment(images, draw_numbers(1, 0, range(500)), replace(NONE, smallest_crop=0.4), 200).float()
        for images in (ramp, ramp.transpose(2, 3))
    ]
    width = (both[0][:, 0, 100, -1] - both[0][:, 0, 100, 0]).abs() / 199
    height = (both[1][:, 0, -1, 100] - both[1][:, 0, 0, 100]) / 199
    area = width * height
    assert 0.38 < area.min() < 0.42
    assert 0.9 < area.max() <= 1.0
    assert area.mean().item() == pytest.approx(0.7, abs=0.03)
    assert 0.45 < (both[0][:, 0, 100, -1] < both[0][:, 0, 100, 0]).float().mean() < 0.55


def test_brightness_and_contrast_change_by_the_given_strength() -> None:
    plain = replace(NONE, color_jitter=0.3)
    brighter = augment(PIXELS // 2, set_numbers(column_6=1.0), plain, 64).float()
    assert brighter.mean().item() == pytest.approx(1.3 * (PIXELS // 2).float().mean().item(), rel=0.02)
    flatter = augment(PIXELS, set_numbers(column_7=0.0), plain, 64).float()
    expected = transforms.adjust_contrast(PIXELS, 0.7)
    assert measure_difference(flatter, expected) < 1.5
    assert measure_difference(flatter, PIXELS) > 5


def test_rectangles_are_erased_with_the_given_probability() -> None:
    white = torch.full((400, 3, 64, 64), 255, dtype=torch.uint8)
    images = augment(white, draw_numbers(1, 0, range(400)), replace(NONE, erasing=0.3), 64)
    erased = (images == GRAY).all(1)
    shares = erased.float().mean((1, 2))
    assert 0.24 < (shares > 0).float().mean() < 0.36
    assert shares[shares > 0].min() > 0.01
    assert 0.25 < shares.max() < 0.36
    assert ((images == GRAY) | (images == 255)).all()
    one = erased[shares.argmax()]
    assert torch.equal(one, one.any(1)[:, None] & one.any(0)[None, :])


def test_numbers_depend_only_on_seed_epoch_and_position() -> None:
    numbers = draw_numbers(1, 0, [4, 2, 9])
    assert torch.equal(draw_numbers(1, 0, [9, 4]), numbers[[2, 0]])
    assert 0 <= numbers.min() < numbers.max() < 1
    for other in (draw_numbers(2, 0, [4, 2, 9]), draw_numbers(1, 1, [4, 2, 9]), numbers.roll(1, 0)):
        assert not (other == numbers).any()


def test_an_image_does_not_depend_on_the_rest_of_its_batch() -> None:
    numbers = draw_numbers(1, 0, range(6))
    together = augment(PIXELS, numbers, STRONG, SIDE)
    alone = torch.cat([augment(PIXELS[[n]], numbers[[n]], STRONG, SIDE) for n in range(6)])
    assert torch.equal(together, alone)


def test_equal_images_are_changed_differently() -> None:
    images = augment(PIXELS[:1].repeat(6, 1, 1, 1), draw_numbers(1, 0, range(6)), STRONG, SIDE)
    assert len({image.numpy().tobytes() for image in images}) == 6


def test_reduced_precision_does_not_change_an_image() -> None:
    numbers = draw_numbers(1, 0, range(6))
    with torch.autocast("cpu", torch.bfloat16):
        output = augment(PIXELS, numbers, STRONG, SIDE)
    assert torch.equal(output, augment(PIXELS, numbers, STRONG, SIDE))
