"""Batches that do not fit into the GPU's memory, and layers that are compiled."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import PermanentError, RetryableError
from jobs.models.device import Device
from jobs.models.torch_model import forward_halving, load_torch_model
from tests.shop import TinyModels


def make_forward(capacity: int, sizes: list[int]):  # type: ignore[no-untyped-def]
    """A forward pass on a device that holds ``capacity`` images; it notes what was asked of it."""

    def forward(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch * 2

    return forward


def test_batch_is_halved_until_it_fits_and_keeps_its_order() -> None:
    sizes: list[int] = []
    batch = torch.arange(13)
    assert torch.equal(forward_halving(make_forward(3, sizes), batch), batch * 2)
    assert max(size for size in sizes if size <= 3) <= 3
    assert sizes[0] == 13


def test_one_image_too_many_is_worth_a_retry() -> None:
    with pytest.raises(RetryableError, match="GPU"):
        forward_halving(make_forward(0, []), torch.arange(4))


@pytest.mark.no_cover
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with g++")
def test_compiled_layers_answer_the_same_for_batches_of_any_size(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    device = Device(torch.device("cpu"), torch.float32)
    plain, compiled = (
        load_torch_model(tiny_models.encoder, "encoder", device, compiled=compiled) for compiled in (False, True)
    )
    side = plain.geometry.crop_to
    batches = [
        np.random.default_rng(size).integers(0, 256, (size, side, side, 3), dtype=np.uint8) for size in (16, 16, 5, 1)
    ]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(compiled.predict, batches))
    for answer, batch in zip(answers, batches, strict=True):
        assert np.allclose(answer, plain.predict(batch), atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_without_a_compiler_the_switch_is_refused_in_words(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(PermanentError, match=r"install g\+\+"):
        load_torch_model(tiny_models.encoder, "encoder", Device(torch.device("cpu"), torch.float32), compiled=True)
