import pytest
import torch

from jobs.errors import PermanentError
from jobs.models.device import PRECISIONS, choose_device
from jobs.models.production import Precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_asked_for_is_given(precision: Precision) -> None:
    device = choose_device("cpu", precision)
    assert (device.torch_device, device.dtype) == (torch.device("cpu"), PRECISIONS[precision])
    assert not device.is_cuda
    assert device.precision == precision


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto", "auto").is_cuda == torch.cuda.is_available()


def test_auto_computes_in_sixteen_bits_only_where_the_processor_does() -> None:
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("bf16"))
    assert choose_device("cpu", "auto").dtype is (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("gpu", "auto", "CATALOG_DEVICE=gpu: must be auto, cpu or cuda"),
        ("", "auto", "CATALOG_DEVICE"),
        ("cpu", "half", "CATALOG_PRECISION=half: must be auto, int8, fp32, bf16, fp16"),
    ],
)
def test_an_unknown_word_is_refused_with_its_setting(device: str, precision: str, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        choose_device(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(PermanentError, match="CATALOG_DEVICE=cuda, but torch sees no GPU"):
        choose_device("cuda", "auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_tasks_are_spread_over_the_gpus() -> None:
    count = torch.cuda.device_count()
    devices = [choose_device("cuda", "auto", index).torch_device.index for index in range(2 * count)]
    assert devices == [*range(count), *range(count)]
    assert choose_device("cuda", "auto").dtype in {torch.bfloat16, torch.float16}
