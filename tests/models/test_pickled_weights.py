"""Check that pickled weights are converted exactly and that code in a pickle never runs."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.errors import PermanentError
from jobs.models import pickled_weights
from jobs.models.pickled_weights import convert_pickled
from jobs.settings import PROJECT_ROOT

BIN = "pytorch_model.bin"
WEIGHTS = {
    "matrix": torch.rand(3, 5),
    "half": torch.rand(7).half(),
    "brain": torch.rand(2, 2).bfloat16(),
    "position_ids": torch.arange(5)[None],
    "mask": torch.tensor([True, False, True]),
    "scale": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}
SHARED = WEIGHTS | {"tied": WEIGHTS["matrix"], "transposed": WEIGHTS["matrix"].T, "a_row": WEIGHTS["matrix"][1]}


class Malicious:
    """An object whose pickle creates a folder when loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def convert(folder: Path, content: object, is_zip: bool = True) -> Path:
    """Pickle an object as the weights of a checkpoint folder, and convert them."""
    torch.save(content, folder / BIN, _use_new_zipfile_serialization=is_zip)
    target = folder.parent / "cache" / "converted"
    convert_pickled(folder, [BIN], ["config.json"], target)
    return target


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "the format before torch 1.6"])
def test_every_tensor_is_converted_exactly(folder: Path, is_zip: bool) -> None:
    before = sorted(path.name for path in folder.iterdir())
    target = convert(folder, SHARED | {"parameter": torch.nn.Parameter(torch.ones(2))}, is_zip)
    found = load_file(target / "model.safetensors")
    assert found.keys() == SHARED.keys() | {"parameter"}
    for name, expected in SHARED.items():
        assert found[name].dtype is expected.dtype
        assert torch.equal(found[name], expected)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, BIN])


def test_code_in_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"cannot be converted: .*mkdir") as caught:
        convert(folder, WEIGHTS | {"weight": Malicious(tmp_path / "made by the pickle")})
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "made by the pickle").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["converted.lock"]


REFUSED: dict[str, tuple[Any, str]] = {
    "a tensor alone": (torch.ones(2), "it contains a Tensor instead of named tensors"),
    "weights one level down": ({"state_dict": WEIGHTS}, "the entry 'state_dict' is a dict, not a tensor"),
    "a number": (WEIGHTS | {"epoch": 3}, "the entry 'epoch' is a int, not a tensor"),
    "a dtype of its own": ({"c": torch.zeros(2, dtype=torch.complex64)}, "does not support c: torch.complex64"),
    "sparse weights": ({"s": torch.eye(3).to_sparse()}, "does not support s: torch.float32 in the layout"),
    "far more memory than bytes": ({"w": torch.zeros(1).expand(10**10)}, "memory"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_files_without_tensors_are_refused_in_one_line(folder: Path, content: Any, reason: str) -> None:
    with pytest.raises(PermanentError) as caught:
        convert(folder, content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused_in_one_line(folder: Path) -> None:
    torch.save(WEIGHTS, folder / BIN)
    (folder / BIN).write_bytes((folder / BIN).read_bytes()[:-300])
    with pytest.raises(PermanentError, match="cannot be converted") as caught:
        convert_pickled(folder, [BIN], [], folder.parent / "cache" / "converted")
    assert "\n" not in str(caught.value)


def test_a_slow_conversion_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_weights, "START_SECONDS", 0)
    with pytest.raises(PermanentError, match="took over 0 s to read"):
        convert(folder, WEIGHTS)


def test_written_tensors_are_compared_with_those_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(path: Path, report: dict[str, Any]) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        compare(path, report)

    compare = pickled_weights._compare
    monkeypatch.setattr(pickled_weights, "_compare", spoil)
    with pytest.raises(PermanentError, match="does not contain what was read"):
        convert(folder, WEIGHTS)
    assert not (folder.parent / "cache" / "converted").exists()


def test_concurrent_conversions_run_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(2) as pool:
        targets = list(pool.map(lambda _: convert(folder, WEIGHTS), range(2)))
    assert len(set(targets)) == 1
    assert len([record for record in caplog.records if "converting the weights" in record.message]) == 1
    assert load_file(targets[0] / "model.safetensors").keys() == WEIGHTS.keys()


CONVERT = f"""
import sys
from pathlib import Path
from jobs.models.pickled_weights import convert_pickled
convert_pickled(Path(sys.argv[1]), ["{BIN}"], ["config.json"], Path(sys.argv[2]))
"""


def test_a_killed_conversion_leaves_no_target(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "converted"
    # Reading a pipe without a writer blocks, so the conversion is still running when it is killed.
    os.mkfifo(folder / BIN)
    arguments = [sys.executable, "-c", CONVERT, str(folder), str(target)]
    with subprocess.Popen(arguments, cwd=PROJECT_ROOT) as process:
        wait_until(lambda: list_processes(str(folder / BIN)))
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not list_processes(str(folder / BIN)))
    assert not target.exists()
    (folder / BIN).unlink()
    assert convert(folder, WEIGHTS) == target
    assert [path.name for path in sorted(target.parent.iterdir())] == ["converted", "converted.lock"]


def list_processes(argument: str) -> list[str]:
    """Return the ids of processes with this command-line argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if argument in arguments:
            found.append(path.parent.name)
    return found


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true. Leaves enough time for a busy machine."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
