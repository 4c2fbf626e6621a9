import pytest
import torch

from jobs.database.model_builds import Precision
from jobs.errors import PermanentError
from jobs.models import image_model
from jobs.models.device import (
    PRECISIONS,
    choose_cpu_precision,
    choose_device,
    list_native_precisions,
    list_onednn_precisions,
)
from jobs.models.image_model import choose_float


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_natively_supported_precision_is_used(precision: Precision) -> None:
    native = list_native_precisions(torch.cpu.get_capabilities(), list_onednn_precisions())
    device = choose_device("cpu", precision)
    assert device.precision == (precision if precision in native else "fp32")
    assert (device.torch_device, device.dtype) == (torch.device("cpu"), PRECISIONS[device.precision])
    assert not device.is_cuda


PROCESSORS: dict[str, tuple[dict[str, bool], tuple[Precision, ...], tuple[Precision, ...]]] = {
    "AVX2": ({"avx2": True}, (), ()),
    "AVX-512, whose bf16 oneDNN emulates": ({"avx512_f": True, "avx512_vnni": True}, ("bf16",), ()),
    "Zen 4": ({"avx512_bf16": True}, ("bf16",), ("bf16",)),
    "Zen 4, kept to AVX2": ({"avx512_bf16": True}, (), ()),
    "Sapphire Rapids": (
        {"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True},
        ("bf16", "fp16"),
        ("bf16", "fp16"),
    ),
    "Graviton 2": ({"neon": True, "fp16_arith": True}, ("fp16",), ()),
    "Graviton 3": ({"neon": True, "fp16_arith": True, "bf16": True}, ("bf16", "fp16"), ("bf16",)),
}


@pytest.mark.parametrize(("features", "onednn", "native"), PROCESSORS.values(), ids=PROCESSORS)
def test_sixteen_bit_precisions_need_instructions_and_kernels(
    features: dict[str, bool], onednn: tuple[Precision, ...], native: tuple[Precision, ...]
) -> None:
    assert list_native_precisions(features, onednn) == native


@pytest.mark.parametrize(
    ("precision", "native", "chosen"),
    [
        ("auto", (), "fp32"),
        ("auto", ("bf16", "fp16"), "bf16"),
        ("auto", ("fp16",), "fp32"),
        ("int8", ("bf16",), "bf16"),
        ("fp32", ("bf16",), "fp32"),
        ("bf16", ("bf16",), "bf16"),
        ("bf16", (), "fp32"),
        ("fp16", ("bf16",), "fp32"),
        ("fp16", ("bf16", "fp16"), "fp16"),
    ],
)
def test_a_cpu_uses_the_precision_or_float32(precision: str, native: tuple[Precision, ...], chosen: Precision) -> None:
    assert choose_cpu_precision(precision, native) == chosen


def test_a_precision_that_is_replaced_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    image_model._log_replaced.cache_clear()
    assert [choose_float("fp16", ()) for _ in range(3)] == ["fp32"] * 3
    assert [record.message for record in caplog.records] == [
        "this processor does not support fp16 natively: using float32, which is faster than emulation"
    ]


def test_auto_selects_a_gpu_if_there_is_one() -> None:
    assert choose_device("auto", "auto").is_cuda == torch.cuda.is_available()


def test_auto_selects_sixteen_bits_only_with_native_support() -> None:
    native = list_native_precisions(torch.cpu.get_capabilities(), list_onednn_precisions())
    assert choose_device("cpu", "auto").dtype is (torch.bfloat16 if "bf16" in native else torch.float32)


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("gpu", "auto", "CATALOG_DEVICE=gpu: must be auto, cpu or cuda"),
        ("", "auto", "CATALOG_DEVICE"),
        ("cpu", "half", "CATALOG_PRECISION=half: must be auto, int8, fp32, bf16, fp16"),
    ],
)
def test_an_unknown_value_is_refused_with_its_setting(device: str, precision: str, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        choose_device(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_refused() -> None:
    with pytest.raises(PermanentError, match="CATALOG_DEVICE=cuda, but torch finds no GPU"):
        choose_device("cuda", "auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_tasks_are_distributed_over_the_gpus() -> None:
    count = torch.cuda.device_count()
    devices = [choose_device("cuda", "auto", index).torch_device.index for index in range(2 * count)]
    assert devices == [*range(count), *range(count)]
    assert choose_device("cuda", "auto").dtype in {torch.bfloat16, torch.float16}
