"""Run exported programs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.candidates import EXACT
from fixtures.shop import TinyModels
from jobs.database.model_versions import ModelKind
from jobs.errors import ConfigurationError
from jobs.models.exported_model import choose_batch_size, fall_back, load_compiled, load_exported_model
from jobs.models.image_model import PACKAGE_FILE, PROGRAM_FILE
from jobs.models.torch_model import describe_checkpoint, load_torch_model
from jobs.retrain.optimize.export import EXAMPLE_BATCH, compile_program, export_checkpoint, trace


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({32: 4000, 64: 7600, 128: 11_000, 256: 15_000}, 256),
        ({32: 4000, 64: 7600, 128: 14_500, 256: 15_000}, 128),
        ({32: 4000, 64: 7600}, 64),
        ({32: 900, 64: 800, 128: 700, 256: 600}, 32),
        ({}, 32),
    ],
    ids=["largest", "nearly as fast", "little memory", "slower", "no memory"],
)
def test_the_smallest_batch_that_is_nearly_the_fastest_is_chosen(speeds: dict[int, float], size: int) -> None:
    def measure(batch_size: int) -> float:
        if batch_size not in speeds:
            raise torch.OutOfMemoryError
        return speeds[batch_size]

    assert choose_batch_size(measure) == size


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_a_program_gives_the_predictions_of_its_checkpoint(
    tiny_models: TinyModels, tmp_path: Path, kind: ModelKind
) -> None:
    folder = getattr(tiny_models, kind)
    export_checkpoint(folder, kind, EXACT, tmp_path / "program")
    model = load_exported_model(tmp_path / "program", describe_checkpoint(folder, kind), EXACT, batch_size=None)
    side = model.geometry.crop_to
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    exact = load_torch_model(folder, kind, EXACT)
    for count in (1, 2, 5):
        np.testing.assert_allclose(model.predict(pixels[:count]), exact.predict(pixels[:count]), atol=1e-5)
    assert (model.description, model.device_class, model.categories) == ("torch fp32 on cpu", "cpu", exact.categories)


class _Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Conv2d(3, 4, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(pixels.permute(0, 3, 1, 2) / 255).mean((2, 3))
        return features


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_a_compiled_program_gives_the_outputs_of_the_program(tmp_path: Path) -> None:
    """Compile for the CPU. Only the device differs from the package for a GPU."""
    network = _Network().eval()
    program = trace(network, torch.zeros(EXAMPLE_BATCH, 8, 8, 3, dtype=torch.uint8))
    # Trying each instruction set with the compiler takes most of the time, and a pool of compilers outlives the test.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True, "compile_threads": 1}):
        compile_program(program, EXACT, tmp_path / PACKAGE_FILE)

    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("ran without compilation")

    compiled = load_compiled(tmp_path / PACKAGE_FILE, refuse, 8, EXACT, passes=2)
    pixels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for count in (1, 2, 40):
            torch.testing.assert_close(compiled(pixels[:count]), network(pixels[:count]))


def test_the_same_checkpoint_gives_the_same_bytes(tiny_models: TinyModels, tmp_path: Path) -> None:
    for name in ("first", "second"):
        export_checkpoint(tiny_models.classifier, "classifier", EXACT, tmp_path / name)
    first, second = ((tmp_path / name / PROGRAM_FILE).read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_damaged_program_is_one_line(tiny_models: TinyModels, tmp_path: Path) -> None:
    (tmp_path / PROGRAM_FILE).write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="is not an exported program: "):
        load_exported_model(tmp_path, describe_checkpoint(tiny_models.classifier, "classifier"), EXACT, batch_size=None)


def test_a_batch_on_which_the_compiled_program_fails_is_run_without_compilation() -> None:
    def compiled(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 2:
            raise RuntimeError("run_func_ API call failed")
        return pixels + 1

    def program(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError
        return pixels + 2

    forward = fall_back(compiled, program)
    assert forward(torch.zeros(2)).tolist() == [1, 1]
    assert forward(torch.zeros(3)).tolist() == [2, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        forward(torch.zeros(5))
