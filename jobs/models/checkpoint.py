"""A checkpoint on disk: a folder in the Hugging Face layout, weights in safetensors only."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from jobs.errors import PermanentError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
NEEDED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
LOADING_FAULTS = (OSError, ValueError, SafetensorError)
"""What Transformers raises when a folder does not hold what it is asked for."""


def resolve_base(base: str, setting: str) -> Path:
    """The folder of a starting point, which is a directory or a hub id (``owner/name[@revision]``).

    Raises:
        PermanentError: neither a directory nor a model that the hub hands out; never a substitute.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        return _require_safetensors(folder, setting)
    if not HUB_ID.fullmatch(base) or base.startswith((".", "/", "~")):
        raise PermanentError(f"{setting}={base}: no such directory")
    return _require_safetensors(_download(base, setting), setting)


def _download(base: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = base.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=NEEDED_FILES))
    except HFValidationError as error:
        raise PermanentError(f"{setting}={base}: neither a directory nor a hub id ({error})") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise PermanentError(
            f"{setting}={base}: cannot be downloaded ({first_line(error)}); on a machine with network run "
            f"`hf download {name} --local-dir FOLDER`, copy the folder here and set {setting}=FOLDER"
        ) from None


def _require_safetensors(folder: Path, setting: str) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise PermanentError(
            f"{setting}: {folder} holds no *.safetensors; pickled weights are never loaded, "
            "convert them with `save_pretrained` on a machine that you trust"
        )
    return folder


def load_model(auto_class: Any, folder: Path, dtype: Any) -> Any:
    """Load a model by one of Transformers' auto classes, with every weight that it needs.

    Raises:
        PermanentError: the folder holds no such model, or only a part of it, which random numbers would complete.
    """
    try:
        model, report = auto_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    # Weights of another shape than the configuration says are a RuntimeError.
    except (*LOADING_FAULTS, RuntimeError) as error:
        raise PermanentError(f"{folder} does not load by {auto_class.__name__}: {first_line(error)}") from None
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise PermanentError(
            f"{folder} lacks weights of {type(model).__name__} ({missing}): it is another kind of model"
        )
    return model


def first_line(error: Exception) -> str:
    """What went wrong, without the advice that libraries add."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def list_files(folder: Path) -> list[Path]:
    """The files that make up a checkpoint, in the order in which `hash_checkpoint` reads them."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hash_checkpoint(folder: Path) -> str:
    """sha256 over the names and contents of all files: equal if and only if the checkpoints are."""
    files = list_files(folder)
    digest = hashlib.sha256()
    # Hashing lets other threads run, and every start of a shard waits for it.
    with ThreadPoolExecutor() as pool:
        for path, file_hash in zip(files, pool.map(hash_file, files), strict=True):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_hash}\n".encode())
    return digest.hexdigest()


def hash_weights(folder: Path) -> str:
    """sha256 over the weights alone."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
