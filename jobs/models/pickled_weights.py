"""Convert the pickled weights of a checkpoint to safetensors once, without running code in the pickle."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jobs.errors import ConfigurationError, PermanentError, RetryableError
from jobs.settings import PROJECT_ROOT

log = logging.getLogger(__name__)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MIN_BYTES_PER_SECOND = 5_000_000
START_SECONDS = 60
PASSED_VARIABLES = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE")
"""Environment variables passed to the process that reads the pickle. None contains credentials."""


def convert_pickled(folder: Path, weights: Sequence[str], others: Sequence[str], target: Path) -> None:
    """Write the checkpoint to ``target`` with its weights in safetensors, unless ``target`` exists.

    ``weights`` are the names of the pickled files, after their index if there is one. ``others`` are files to copy. A
    killed conversion leaves no ``target``. A concurrent conversion waits for the first.

    Raises:
        ConfigurationError: the files contain more than tensors, are damaged, or need too much memory for their size.
        RetryableError: another process has been converting them for too long.
    """
    if len(weights) > 1:
        _require_shards(folder, weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    seconds = START_SECONDS + sum((folder / name).stat().st_size for name in weights) // MIN_BYTES_PER_SECOND
    try:
        with FileLock(target.with_suffix(".lock"), timeout=seconds):
            if not target.is_dir():
                _convert(folder, weights, others, target, seconds)
    except Timeout:
        raise RetryableError(f"another process is converting {folder}. Wait for it") from None


def _require_shards(folder: Path, weights: Sequence[str]) -> None:
    index = json.loads((folder / weights[0]).read_text(encoding="utf-8"))
    if missing := set(index["weight_map"].values()) - set(weights):
        raise ConfigurationError(f"{folder} lacks {', '.join(sorted(missing))}, named by {weights[0]}. Copy it again")


def _convert(folder: Path, weights: Sequence[str], others: Sequence[str], target: Path, seconds: int) -> None:
    partial = target.with_suffix(".partial")
    # Left by a killed conversion.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        log.info("converting the weights of %s to safetensors, once", folder)
        sources = weights if len(weights) == 1 else weights[1:]
        targets = [_rename(name) for name in sources]
        pairs = [(folder / old, partial / new) for old, new in zip(sources, targets, strict=True)]
        reports = _unpickle(folder, pairs, seconds)
        for (_, path), report in zip(pairs, reports, strict=True):
            _compare(path, report)
        if len(weights) > 1:
            _write_index(partial / INDEX, dict(zip(targets, reports, strict=True)))
        for name in others:
            shutil.copyfile(folder / name, partial / name)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(name: str) -> str:
    return f"{name.removesuffix('.bin').replace('pytorch_model', 'model', 1)}.safetensors"


def _unpickle(folder: Path, pairs: Sequence[tuple[Path, Path]], seconds: int) -> list[dict[str, Any]]:
    paths = [str(path.absolute()) for pair in pairs for path in pair]
    environment = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    advice = "ask its author for safetensors, or convert it with `save_pretrained` on an isolated machine"
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "jobs.models.unpickle", str(os.getpid()), str(seconds), *paths],
            cwd=PROJECT_ROOT,
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"the pickled weights of {folder} took over {seconds} s to read: {advice}") from None
    if finished.returncode:
        reason = next(iter(reversed(finished.stderr.strip().splitlines())), f"exit code {finished.returncode}")
        raise ConfigurationError(f"the pickled weights of {folder} cannot be converted: {reason}; {advice}")
    reports: list[dict[str, Any]] = json.loads(finished.stdout)
    return reports


def _compare(path: Path, report: dict[str, Any]) -> None:
    """Check that the safetensors file contains the tensors that were read from the pickle."""
    # Imported here, so callers that convert nothing do not import torch.
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        written = {}
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            values = file.get_slice(name)
            content = file.get_tensor(name).reshape(-1).view(torch.uint8).numpy()
            digest = hashlib.sha256(content).hexdigest()
            written[name] = {"dtype": values.get_dtype(), "shape": values.get_shape(), "sha256": digest}
    if written != report:
        raise PermanentError(f"{path} does not contain what was read from the pickle. Check the disk, and try again")


def _write_index(path: Path, reports: dict[str, dict[str, Any]]) -> None:
    names = {tensor: file for file, report in reports.items() for tensor in report}
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=1), encoding="utf-8")
