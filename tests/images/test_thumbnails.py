from io import BytesIO

from PIL import Image

from fixtures.shop import make_image
from jobs.failures import DecodeReason
from jobs.images.decode import DecodeFailure
from jobs.images.thumbnails import GRID_SIDE, shrink_under_limits
from jobs.settings import ImageSettings

SHRINK = shrink_under_limits(ImageSettings(), GRID_SIDE)


def test_an_image_becomes_a_small_jpeg() -> None:
    small = SHRINK(make_image(1, (600, 800)))
    assert isinstance(small, bytes)
    with Image.open(BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (240, GRID_SIDE))


def test_images_are_decoded_with_limits() -> None:
    bomb = BytesIO()
    Image.new("1", (6000, 5000)).save(bomb, "PNG")
    refused = [SHRINK(content) for content in (bomb.getvalue(), b"<svg onload=alert(1)>", make_image(1)[:-200])]
    assert [fault.reason for fault in refused if isinstance(fault, DecodeFailure)] == [
        DecodeReason.TOO_MANY_PIXELS,
        DecodeReason.UNSUPPORTED,
        DecodeReason.TRUNCATED,
    ]
