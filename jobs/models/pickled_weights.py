"""Convert a checkpoint with pickled weights to safetensors, once, without ever running what a pickle asks for."""

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
SLOWEST_BYTES_PER_SECOND = 5_000_000
START_SECONDS = 60
PASSED_ON = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE")
"""The environment of the process that reads the pickle; it sees no credentials."""


def convert_pickled(folder: Path, weights: Sequence[str], others: Sequence[str], target: Path) -> None:
    """Write the checkpoint to ``target`` with its weights in safetensors, unless that folder is there already.

    ``weights`` are the names of its pickled files, or of their index first and then the files; ``others`` are files to
    copy. A conversion that is killed leaves no ``target``, and of two at once the second waits for the first.

    Raises:
        ConfigurationError: the files hold more than tensors, are damaged, or need more memory than their size explains.
        RetryableError: another process has been converting them for too long.
    """
    if len(weights) > 1:
        _require_shards(folder, weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    seconds = START_SECONDS + sum((folder / name).stat().st_size for name in weights) // SLOWEST_BYTES_PER_SECOND
    try:
        with FileLock(target.with_suffix(".lock"), timeout=seconds):
            if not target.is_dir():
                _convert(folder, weights, others, target, seconds)
    except Timeout:
        raise RetryableError(f"another process is converting {folder}: wait for it") from None


def _require_shards(folder: Path, weights: Sequence[str]) -> None:
    index = json.loads((folder / weights[0]).read_text(encoding="utf-8"))
    if missing := set(index["weight_map"].values()) - set(weights):
        raise ConfigurationError(f"{folder} lacks {', '.join(sorted(missing))}, named by {weights[0]}: copy it again")


def _convert(folder: Path, weights: Sequence[str], others: Sequence[str], target: Path, seconds: int) -> None:
    partial = target.with_suffix(".partial")
    # Of a conversion that was killed.
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
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    advice = "ask its author for safetensors, or convert it with `save_pretrained` on a machine that you trust"
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
        raise ConfigurationError(f"the pickled weights of {folder} were not read in {seconds} s: {advice}") from None
    if finished.returncode:
        reason = next(iter(reversed(finished.stderr.strip().splitlines())), f"exit code {finished.returncode}")
        raise ConfigurationError(f"the pickled weights of {folder} cannot be converted: {reason}; {advice}")
    reports: list[dict[str, Any]] = json.loads(finished.stdout)
    return reports


def _compare(path: Path, report: dict[str, Any]) -> None:
    """Check that the library reads from the file what was read from the pickle."""
    # Here, so that those who convert nothing need no torch.
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        written = {}
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            values = file.get_slice(name)
            content = file.get_tensor(name).reshape(-1).view(torch.uint8).numpy()
            digest = hashlib.sha256(content).hexdigest()
            written[name] = {"dtype": values.get_dtype(), "shape": values.get_shape(), "sha256": digest}
    if written != report:
        raise PermanentError(f"{path} does not hold what was read from the pickle: check the disk, and try again")


def _write_index(path: Path, reports: dict[str, dict[str, Any]]) -> None:
    names = {tensor: file for file, report in reports.items() for tensor in report}
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=1), encoding="utf-8")
