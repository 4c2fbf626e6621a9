"""Compare the predictions of every device of this machine with those of a CPU in float32."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from demo.blank_checkpoints import BlankBases, write_blank_bases
from jobs.database.model_versions import ModelKind
from jobs.models.device import choose_device, use_own_stream
from jobs.models.torch_model import TorchModel, load_torch_model

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOLERANCES = {"fp32": 2e-3, "bf16": 3e-2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> BlankBases:
    return write_blank_bases(tmp_path_factory.mktemp("bases"), ["dress", "hat", "shirt"], ["a red dress"])


def load(bases: BlankBases, kind: ModelKind, device: str, precision: str) -> TorchModel:
    folder: Path = getattr(bases, kind)
    return load_torch_model(folder, kind, choose_device(device, precision))


def make_batch(model: TorchModel, count: int) -> np.ndarray:
    side = model.geometry.crop_to
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", get_args(ModelKind))
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("device", DEVICES)
def test_predictions_match_a_cpu_in_float32(bases: BlankBases, device: str, precision: str, kind: ModelKind) -> None:
    expected, model = load(bases, kind, "cpu", "fp32"), load(bases, kind, device, precision)
    batch = make_batch(model, 33)
    assert model.device.torch_device.type == device
    answers = model.predict(batch)
    assert answers.dtype == np.float32
    assert np.abs(answers - expected.predict(batch)).max() < TOLERANCES[precision]


@pytest.mark.parametrize("device", DEVICES)
def test_concurrent_batches_give_the_same_predictions(bases: BlankBases, device: str) -> None:
    model = load(bases, "encoder", device, "fp32")
    batches = [make_batch(model, count) for count in range(1, 41)]
    expected = [model.predict(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(model.predict, batches))
    for answer, one_by_one in zip(answers, expected, strict=True):
        assert np.allclose(answer, one_by_one, atol=TOLERANCES["fp32"])


@needs_gpu
def test_each_thread_uses_its_own_stream() -> None:
    device = choose_device("cuda", "auto")

    def read_streams(_: int) -> list[int]:
        streams = []
        for _ in range(2):
            with use_own_stream(device):
                streams.append(torch.cuda.current_stream(device.torch_device).cuda_stream)
        return streams

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first, second = one.submit(read_streams, 0).result(), other.submit(read_streams, 0).result()
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert len({first[0], second[0], torch.cuda.default_stream().cuda_stream}) == 3
