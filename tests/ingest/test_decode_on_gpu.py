"""Test the GPU decoder on a CPU, where it makes the same calls to TorchCodec with another device."""

import io
import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torchcodec.decoders import decode_jpeg

from fixtures.shop import Shop, make_image
from jobs.errors import PermanentError
from jobs.failures import DecodeReason
from jobs.images.decode import DecodeFailure, DecodeLimits, PreparedImage, prepare_image
from jobs.images.geometry import Geometry
from jobs.ingest import decode_on_gpu
from jobs.ingest.decode_on_gpu import GpuDecoder, Jpeg, cut_groups, require_gpu, resize_on_device
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.models.device import Device
from tests.images.test_decode import encode

CPU = Device(torch.device("cpu"), torch.float32)
LIMITS = DecodeLimits(max_pixels=1_000_000, min_side_pixels=8, target_side=128)
GEOMETRIES = (
    Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bilinear"),
    Geometry(resize_to=64, crop_to=64, keep_aspect=False, interpolation="bicubic"),
)
RESIZE_GEOMETRIES = (
    Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bicubic"),
    Geometry(resize_to=64, crop_to=56, keep_aspect=True, interpolation="bilinear", crop_rounding="even"),
    Geometry(resize_to=64, crop_to=64, keep_aspect=False, interpolation="bicubic"),
    Geometry(resize_to=48, crop_to=64, keep_aspect=True, interpolation="bicubic"),
)


class Processes:
    """Replaces the decoding processes, and records the images that they receive."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, contents: Sequence[bytes]) -> list[PreparedImage | DecodeFailure]:
        self.asked += contents
        return [prepare_image(content, LIMITS, GEOMETRIES) for content in contents]


@pytest.fixture
def processes() -> Processes:
    return Processes()


@pytest.fixture
def decoder(processes: Processes) -> GpuDecoder:
    return GpuDecoder(CPU, LIMITS, GEOMETRIES, processes)


def assert_alike(one: PreparedImage | DecodeFailure, other: PreparedImage | DecodeFailure) -> None:
    assert isinstance(one, PreparedImage)
    assert isinstance(other, PreparedImage)
    assert (one.width, one.height) == (other.width, other.height)
    for ours, theirs in zip(one.inputs, other.inputs, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).mean() < 1.5


@pytest.mark.parametrize("size", [(90, 120), (300, 200), (900, 700)])
def test_images_match_those_of_the_processes(decoder: GpuDecoder, processes: Processes, size: tuple[int, int]) -> None:
    contents = [make_image(number, size) for number in range(3)]
    prepared = decoder.decode(contents)
    assert processes.asked == []
    for one, content in zip(prepared, contents, strict=True):
        assert_alike(one, prepare_image(content, LIMITS, GEOMETRIES))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(decoder: GpuDecoder, processes: Processes, orientation: int) -> None:
    blocks = Image.fromarray(np.random.default_rng(3).integers(0, 255, (6, 4, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(blocks.resize((160, 240), Image.Resampling.NEAREST), "JPEG", exif=exif, quality=95)
    assert_alike(decoder.decode([content])[0], prepare_image(content, LIMITS, GEOMETRIES))
    assert processes.asked == ([content] if orientation > 1 else [])


def test_a_mixed_batch_keeps_its_order_and_reasons(decoder: GpuDecoder, processes: Processes) -> None:
    image = make_image(1, (90, 120))
    cmyk = encode(Image.new("RGB", (64, 64), (220, 30, 40)).convert("CMYK"), "JPEG")
    huge = encode(Image.new("L", (1001, 1000)), "JPEG")
    narrow = encode(Image.new("L", (7, 90)), "JPEG")
    others = [b"", b"<html>", make_image(2, (50, 60), "PNG"), image[:400], cmyk, huge, narrow]
    prepared = decoder.decode([image, *others, make_image(3, (90, 120))])
    assert processes.asked == others
    reasons = [one.reason if isinstance(one, DecodeFailure) else None for one in prepared]
    assert reasons == [
        None,
        DecodeReason.EMPTY,
        DecodeReason.UNSUPPORTED,
        None,
        DecodeReason.TRUNCATED,
        None,
        DecodeReason.TOO_MANY_PIXELS,
        DecodeReason.TOO_SMALL,
        None,
    ]
    assert_alike(prepared[0], prepare_image(image, LIMITS, GEOMETRIES))
    assert_alike(prepared[8], prepare_image(make_image(3, (90, 120)), LIMITS, GEOMETRIES))


def test_a_bomb_is_refused_by_our_own_limit(decoder: GpuDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    prepared = decoder.decode([encode(Image.new("L", (1001, 1000)), "JPEG")])
    assert isinstance(prepared[0], DecodeFailure)
    assert prepared[0].reason is DecodeReason.TOO_MANY_PIXELS


def test_gray_images_get_three_channels(decoder: GpuDecoder, processes: Processes) -> None:
    content = encode(Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)), "JPEG")
    assert_alike(decoder.decode([content])[0], prepare_image(content, LIMITS, GEOMETRIES))
    assert processes.asked == []


def test_images_that_the_gpu_refuses_are_logged_and_decoded_by_processes(
    decoder: GpuDecoder, processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    # A JPEG with a header and an end, but without a scan between them.
    image = make_image(1, (90, 120))
    hollow = image[: image.index(b"\xff\xda")] + b"\xff\xd9"
    with caplog.at_level(logging.WARNING):
        prepared = decoder.decode([image, hollow])
    assert_alike(prepared[0], prepare_image(image, LIMITS, GEOMETRIES))
    assert isinstance(prepared[1], DecodeFailure)
    assert processes.asked == [image, hollow]
    assert "the GPU failed to decode 2 JPEGs" in caplog.text


def test_groups_are_limited_in_pixels_and_complete() -> None:
    jpegs = [Jpeg(position, b"", width, 10) for position, width in enumerate((4, 4, 4, 30, 1, 1))]
    groups = [[jpeg.position for jpeg in group] for group in cut_groups(jpegs, 80)]
    assert groups == [[0, 1], [2], [3], [4, 5]]


def test_a_run_with_the_gpu_decoder_gives_the_same_tags(tagging_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tagging_shop.put_images(10)
    tagging_shop.put("p9_1.png", make_image(99, image_format="PNG"))
    tagging_shop.put("p9_2.jpg", make_image(98)[:400])
    tags = "SELECT image_id, category FROM catalog.current_image_tags ORDER BY 1"
    ingest(tagging_shop.connections, IngestOptions())
    expected = tagging_shop.query(tags)
    monkeypatch.setattr(decode_on_gpu, "require_gpu", lambda device, index: CPU)
    groups: list[int] = []

    def decode(contents: Sequence[bytes], **how: object) -> object:
        groups.append(len(contents))
        return decode_jpeg(contents, **how)

    monkeypatch.setattr(decode_on_gpu, "decode_jpeg", decode)
    report = ingest(tagging_shop.with_settings(jpeg_decoder="gpu"), IngestOptions(force=True))
    assert sum(groups) == 10
    assert (report.tagged, report.failed) == (11, 1)
    assert tagging_shop.query(tags) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_gpu_decoder_without_a_gpu_is_a_clear_error() -> None:
    with pytest.raises(PermanentError, match="CATALOG_JPEG_DECODER=gpu needs a GPU"):
        require_gpu("auto", 0)


@pytest.mark.parametrize("size", [(301, 200), (160, 333), (40, 47)])
@pytest.mark.parametrize("geometry", RESIZE_GEOMETRIES, ids=lambda geometry: f"{geometry.resize_to}-{geometry.crop_to}")
def test_resized_tensors_match_the_decoding_processes(geometry: Geometry, size: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(make_image(5, size))).convert("RGB")
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    resized = resize_on_device(tensor, geometry).permute(1, 2, 0).numpy()
    expected = geometry.resize(image)
    assert resized.dtype == expected.dtype
    assert resized.shape == expected.shape
    difference = np.abs(resized.astype(int) - expected)
    # In levels of 255. Rounding causes smaller differences; a crop one pixel off, or another filter, larger ones.
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.99) <= 3
