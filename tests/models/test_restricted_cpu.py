"""Serve models that were built on one processor on another processor with fewer instructions.

The other processor is this machine, restricted to AVX2 by the variables of `benchmarks/avx2.py`. They only affect new
processes, so predictions run in one.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from benchmarks.avx2 import AVX2
from jobs.database.model_builds import EngineName, Precision
from jobs.database.model_versions import ModelKind
from jobs.models.device import Device
from jobs.models.engine import EngineSettings, load_image_model
from jobs.models.image_model import write_build
from jobs.models.torch_model import describe_checkpoint, load_torch_model
from jobs.retrain.optimize.convert import convert_checkpoint, save_graph
from jobs.retrain.optimize.quantize import quantize
from jobs.settings import PROJECT_ROOT
from tests.models.tiny_architectures import SIDE, write_clip, write_resnet

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are those of x86-64")

WAYS: tuple[tuple[EngineName, Precision], ...] = (("torch", "bf16"), ("openvino", "bf16"), ("openvino", "int8"))
SERVE = """
import json, logging, sys
from pathlib import Path
import numpy as np
logging.basicConfig(format="%(message)s", stream=sys.stderr, level="WARNING")
from jobs.models.engine import EngineSettings, load_image_model
answers = []
for folder, kind in zip(sys.argv[2::2], sys.argv[3::2]):
    model = load_image_model(Path(folder), kind, EngineSettings("cpu", "auto"))
    answers.append((model.description, model.predict(np.load(sys.argv[1])).tolist()))
print(json.dumps(answers))
"""
REPLACED = "this processor does not support bf16 natively: using float32, which is faster than emulation"


@dataclass(frozen=True)
class Version:
    """The folder of a build, and its kind."""

    folder: Path
    kind: ModelKind

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predict in this process."""
        return load_image_model(self.folder, self.kind, EngineSettings("cpu", "auto")).predict(pixels)


@dataclass(frozen=True)
class Served:
    """The predictions of versions by name in a process limited to AVX2, and its log."""

    versions: dict[str, Version]
    pixels: np.ndarray
    descriptions: dict[str, str]
    answers: dict[str, np.ndarray]
    log: str


def write_versions(source: Path, kind: ModelKind) -> dict[str, Version]:
    """Write a build for each of `WAYS` next to its checkpoint. Layers of an int8 build that stay float are in float32.

    Converting a checkpoint takes seconds, so both graphs come from one conversion.
    """
    graph = convert_checkpoint(source, kind)
    calibration = np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    versions = {}
    for engine, precision in WAYS:
        folder = source.with_name(f"{source.name}-{engine}-{precision}")
        copytree(source, folder)
        rest: Precision = "fp32" if precision == "int8" else precision
        build = describe_checkpoint(folder, kind)
        write_build(folder, replace(build, engine=engine, precision=precision, rest_precision=rest))
        if engine == "openvino":
            save_graph(quantize(graph, calibration) if precision == "int8" else graph, folder)
        versions[f"{source.name} {engine} {precision}"] = Version(folder, kind)
    return versions


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    work = tmp_path_factory.mktemp("restricted")
    torch.manual_seed(0)
    sources: dict[str, tuple[Callable[[Path], None], ModelKind]] = {
        "ResNet": (write_resnet, "classifier"),
        "CLIP": (write_clip, "encoder"),
    }
    versions: dict[str, Version] = {}
    for name, (write, kind) in sources.items():
        write(work / name)
        versions |= write_versions(work / name, kind)
    pixels = np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(work / "pixels.npy", pixels)
    arguments = [str(value) for version in versions.values() for value in (version.folder, version.kind)]
    finished = subprocess.run(
        [sys.executable, "-c", SERVE, str(work / "pixels.npy"), *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | AVX2,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answers = dict(zip(versions, json.loads(finished.stdout), strict=True))
    return Served(
        versions=versions,
        pixels=pixels,
        descriptions={name: description for name, (description, _) in answers.items()},
        answers={name: np.array(values, dtype=np.float32) for name, (_, values) in answers.items()},
        log=finished.stderr,
    )


def test_a_bf16_build_is_served_in_float32_on_an_older_processor(served: Served) -> None:
    names = [name for name in served.versions if name.endswith("bf16")]
    assert len(names) == 4
    device = Device(torch.device("cpu"), torch.float32)
    for name in names:
        assert served.descriptions[name] == ("torch float32 on cpu" if "torch" in name else "openvino fp32")
        version = served.versions[name]
        exact = load_torch_model(version.folder, version.kind, device).predict(served.pixels)
        np.testing.assert_allclose(served.answers[name], exact, atol=1e-4)
    assert served.log.count(REPLACED) == 1


def test_int8_gives_the_same_predictions_on_every_processor(served: Served) -> None:
    names = [name for name in served.versions if name.endswith("int8")]
    assert len(names) == 2
    for name in names:
        assert served.descriptions[name] == "openvino int8 and fp32"
        here = served.versions[name].predict(served.pixels)
        # Weights with all 8 bits would saturate without the newer instructions. The mean would then be 0.008.
        assert np.abs(here - served.answers[name]).mean() < 1e-3
