"""Find, download, load and hash checkpoints, without running code that they contain."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jobs.alternatives import name_alternatives
from jobs.errors import ConfigurationError, RetryableError, TerminatedError, first_line
from jobs.models.pickled_weights import convert_pickled

SMALL_FILES = ("*.json", "*.txt", "*.model")
"""Patterns of configuration, preprocessing and tokenizer files."""
SHARDS_OF = {
    "model.safetensors": None,
    "model.safetensors.index.json": r"model-\d+-of-\d+\.safetensors",
    "pytorch_model.bin": None,
    "pytorch_model.bin.index.json": r"pytorch_model-\d+-of-\d+\.bin",
}
"""Weights in the Transformers layout, in order of preference. Each is one file, or an index with its shards."""


def choose_weights(names: Iterable[str]) -> tuple[str, ...]:
    """Return the preferred weights of a folder: one file, an index and its shards, or nothing if it has no weights."""
    present = sorted(names)
    for first, pattern in SHARDS_OF.items():
        shards = [name for name in present if pattern and re.fullmatch(pattern, name)]
        if first in present and (shards or not pattern):
            return (first, *shards)
    return ()


def choose_small_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return the configuration, preprocessing and tokenizer files of a folder, except indexes of weights."""
    return tuple(
        name
        for name in sorted(names)
        if any(fnmatch(name, pattern) for pattern in SMALL_FILES) and not name.endswith(".index.json")
    )


def download(base: str, setting: str) -> Path:
    """Download a hub id (``owner/name[@revision]``) to the cache of the hub client, and return the folder.

    Download only the small files and the preferred weights. Without a network, use an earlier download.

    Raises:
        ConfigurationError: the repository does not exist, is restricted, or cannot be downloaded.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = base.partition("@")
    try:
        top = snapshot_download(
            name, revision=revision or None, allow_patterns=list(SMALL_FILES), ignore_patterns=["*/*"]
        )
        folder = Path(top)
        try:
            names = [file.path for file in get_cached_repo_tree(name, revision=folder.name)]
        except CachedRepoTreeNotFoundError:
            # The hub is unreachable, and the cache was filled by an older client.
            names = [path.name for path in folder.iterdir()]
        if weights := choose_weights(names):
            snapshot_download(name, revision=folder.name, allow_patterns=list(weights))
    except HFValidationError as error:
        raise ConfigurationError(f"{setting}={base}: neither a directory nor a hub id ({error})") from None
    except GatedRepoError:
        raise ConfigurationError(
            f"{setting}={base}: the hub restricts access. Accept its conditions on its page, and set HF_TOKEN to a "
            "token of that account"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigurationError(
            f"{setting}={base}: the hub has no such repository, or it is private. Check the name (docs/models.md lists "
            "suitable models), or set HF_TOKEN to a token of an account that can read it"
        ) from None
    except RevisionNotFoundError:
        raise ConfigurationError(
            f"{setting}={base}: {name} has no revision {revision}. Check the name after the @"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigurationError(
            f"{setting}={base}: cannot be downloaded ({first_line(error)}). On a machine with a network, run "
            f"`hf download {name} --local-dir FOLDER`, copy the folder here and set {setting}=FOLDER"
        ) from None
    return folder


HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
OPEN_CLIP_CONFIG = "open_clip_config.json"


def resolve_base(base: str, setting: str, cache: Path) -> Path:
    """Return the folder of a base model, given as a directory or a hub id (``owner/name[@revision]``).

    Pickled weights are converted to safetensors once and kept in ``cache``. No other model is ever substituted.

    Raises:
        ConfigurationError: ``base`` is neither a directory nor a model on the hub, or its weights cannot be loaded.
        RetryableError: another process is converting the weights.
    """
    folder = Path(base).expanduser()
    if not folder.is_dir():
        if not HUB_ID.fullmatch(base) or base.startswith((".", "/", "~")):
            names = [child.name for child in folder.parent.glob("*") if child.is_dir()]
            alternatives = name_alternatives(folder.name, names, f"{folder.parent} contains no directory")
            raise ConfigurationError(f"{setting}={base}: no such directory. {alternatives}")
        folder = download(base, setting)
    names = [path.name for path in folder.iterdir() if path.is_file()]
    weights = choose_weights(names)
    _require_layout(folder, names, weights, f"{setting}={base}")
    if weights[0].startswith("model."):
        return folder
    others = choose_small_files(names)
    target = cache / "converted" / _hash_files(folder, [folder / name for name in (*weights, *others)])
    convert_pickled(folder, weights, others, target)
    return target


def _require_layout(folder: Path, names: Collection[str], weights: Collection[str], base: str) -> None:
    if not weights or "config.json" not in names:
        found = "has only the layout of OpenCLIP" if OPEN_CLIP_CONFIG in names else "contains no checkpoint"
        raise ConfigurationError(
            f"{base} {found}. It needs the layout of Transformers: config.json with model.safetensors or "
            "pytorch_model.bin. docs/models.md lists suitable models"
        )
    with explain_damage(f"the config.json of {base} is damaged"):
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if "auto_map" not in config:
        return
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        raise ConfigurationError(
            f"{base} needs its own Python code (auto_map in config.json), which is never run. docs/models.md lists "
            "models without code"
        )


def load_model(
    auto_class: Any, folder: Path, dtype: Any, name_new_module: Callable[[Any], str] = lambda _: "", **options: Any
) -> Any:
    """Load a model with an auto class of Transformers, and check that no weight is missing.

    ``name_new_module`` returns the name of a module that will be trained from scratch. Its weights may be missing.

    Raises:
        ConfigurationError: the folder holds no such model, or weights are missing.
    """
    with explain_damage(f"{folder} cannot be loaded with {auto_class.__name__}"):
        model, report = auto_class.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    new_module = name_new_module(model)
    # Transformers silently replaces weights that are missing or have another shape with random numbers.
    incomplete = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    missing = sorted(name for name in incomplete if not (new_module and name.startswith(f"{new_module}.")))
    if missing:
        raise ConfigurationError(
            f"{folder} lacks weights of {type(model).__name__} ({', '.join(missing[:3])}). It is another kind of model"
        )
    return model


def require_numbers(model: Any, folder: Path) -> None:
    """Check that all weights of a model are finite. Call this before a model is trained or adopted.

    Raises:
        ConfigurationError: a weight is infinite or not a number.
    """
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ConfigurationError(f"{folder} is damaged: its weights {name} are not all finite numbers")


@contextmanager
def explain_damage(message: str) -> Iterator[None]:
    """Turn any exception about a file into an error with one line.

    Every type is caught, because damaged files make Transformers and tokenizers raise KeyError, TypeError,
    RuntimeError and even plain Exception.

    Raises:
        ConfigurationError: ``message`` with the first line of the exception.
    """
    try:
        yield
    except (RetryableError, TerminatedError, MemoryError):
        # Not caused by the file. For example, a signal may arrive at any time.
        raise
    except Exception as error:
        raise ConfigurationError(f"{message}: {first_line(error)}") from error


def list_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint, in the order in which `hash_checkpoint` reads them."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hash_checkpoint(folder: Path) -> str:
    """Return the sha256 of the names and contents of all files."""
    return _hash_files(folder, list_files(folder))


def _hash_files(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    # Hash in parallel, because every shard waits for this when it starts. Hashing releases the GIL.
    with ThreadPoolExecutor() as pool:
        for path, file_hash in zip(files, pool.map(hash_file, files), strict=True):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_hash}\n".encode())
    return digest.hexdigest()


def hash_weights(folder: Path) -> str:
    """Return the sha256 of the weights only."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
