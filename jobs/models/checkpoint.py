"""Checkpoints: from the Hugging Face hub, a folder or the bucket, and loaded without running code of theirs."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jobs.errors import ConfigurationError, RetryableError, TerminatedError, first_line
from jobs.models.pickled_weights import convert_pickled

SMALL_FILES = ("*.json", "*.txt", "*.model")
"""Configuration, preprocessing and tokenizer."""
SHARDS_OF = {
    "model.safetensors": None,
    "model.safetensors.index.json": r"model-\d+-of-\d+\.safetensors",
    "pytorch_model.bin": None,
    "pytorch_model.bin.index.json": r"pytorch_model-\d+-of-\d+\.bin",
}
"""The weights in the layout of Transformers, the best first: one file, or an index and its shards."""


def choose_weights(names: Iterable[str]) -> tuple[str, ...]:
    """The best weights among the files of a folder: one file, or an index and then its shards; empty without any."""
    present = sorted(names)
    for first, pattern in SHARDS_OF.items():
        shards = [name for name in present if pattern and re.fullmatch(pattern, name)]
        if first in present and (shards or not pattern):
            return (first, *shards)
    return ()


def choose_small_files(names: Iterable[str]) -> tuple[str, ...]:
    """Configuration, preprocessing and tokenizer among the files of a folder, without the indexes of weights."""
    return tuple(
        name
        for name in sorted(names)
        if any(fnmatch(name, pattern) for pattern in SMALL_FILES) and not name.endswith(".index.json")
    )


def download(base: str, setting: str) -> Path:
    """The folder of a hub id (``owner/name[@revision]``) in the cache of the hub's client.

    It holds the small files of the repository and one kind of weights, the best that there is. Without network, what
    was downloaded before is used.

    Raises:
        ConfigurationError: the hub does not have it, does not hand it out, or is away.
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
            # An older client has filled the cache, and the hub is away.
            names = [path.name for path in folder.iterdir()]
        if weights := choose_weights(names):
            snapshot_download(name, revision=folder.name, allow_patterns=list(weights))
    except HFValidationError as error:
        raise ConfigurationError(f"{setting}={base}: neither a directory nor a hub id ({error})") from None
    except GatedRepoError:
        raise ConfigurationError(
            f"{setting}={base}: the hub restricts access to it; accept its conditions on its page, and set HF_TOKEN to "
            "a token of the account that did"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigurationError(
            f"{setting}={base}: the hub has no such repository, or it is private: check the name, or set HF_TOKEN to a "
            "token of an account that may read it"
        ) from None
    except RevisionNotFoundError:
        raise ConfigurationError(
            f"{setting}={base}: {name} has no revision {revision}: check the name after the @"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigurationError(
            f"{setting}={base}: cannot be downloaded ({first_line(error)}); on a machine with network run "
            f"`hf download {name} --local-dir FOLDER`, copy the folder here and set {setting}=FOLDER"
        ) from None
    return folder


HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
OPEN_CLIP_CONFIG = "open_clip_config.json"


def resolve_base(base: str, setting: str, cache: Path) -> Path:
    """The folder of a starting point, which is a directory or a hub id (``owner/name[@revision]``).

    Pickled weights are converted to safetensors in a folder of ``cache``, once.

    Raises:
        ConfigurationError: neither a directory nor a model of the hub, or its weights do not load. Never a
            substitute.
        RetryableError: another process is converting it.
    """

    folder = Path(base).expanduser()
    if not folder.is_dir():
        if not HUB_ID.fullmatch(base) or base.startswith((".", "/", "~")):
            raise ConfigurationError(f"{setting}={base}: no such directory")
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
        found = "is in the layout of OpenCLIP alone" if OPEN_CLIP_CONFIG in names else "holds no checkpoint"
        raise ConfigurationError(
            f"{base} {found}: a config.json with model.safetensors or pytorch_model.bin is needed, the layout of "
            "Transformers; docs/models.md names models that have it"
        )
    with explain_damage(f"the config.json of {base} is damaged"):
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if "auto_map" not in config:
        return
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        raise ConfigurationError(
            f"{base} needs Python code of its own (auto_map in config.json), which is never run; docs/models.md names "
            "models that need none"
        )


def load_model(
    auto_class: Any, folder: Path, dtype: Any, name_new_part: Callable[[Any], str] = lambda _: "", **options: Any
) -> Any:
    """Load a model by one of Transformers' auto classes, with every weight that it needs.

    ``name_new_part`` names the module that the caller trains anew, whose weights need not be there.

    Raises:
        ConfigurationError: the folder holds no such model, or only a part of it, which random numbers would complete.
    """
    with explain_damage(f"{folder} does not load by {auto_class.__name__}"):
        model, report = auto_class.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    new_part = name_new_part(model)
    # Weights of another shape are as good as missing: random numbers take their place.
    lacking = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    missing = sorted(name for name in lacking if not (new_part and name.startswith(f"{new_part}.")))
    if missing:
        raise ConfigurationError(
            f"{folder} lacks weights of {type(model).__name__} ({', '.join(missing[:3])}): it is another kind of model"
        )
    return model


def require_numbers(model: Any, folder: Path) -> None:
    """Look at every weight of a model that is about to be trained or adopted.

    Raises:
        ConfigurationError: one of them is no number.
    """
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise ConfigurationError(f"{folder} is damaged: its weights {name} hold values that are no numbers")


@contextmanager
def explain_damage(words: str) -> Iterator[None]:
    """Turn any exception about a file into one line.

    Exceptions are not listed by type: on damaged files, Transformers and tokenizers also raise KeyError, TypeError,
    RuntimeError and plain Exception.

    Raises:
        ConfigurationError: the words, and what was raised.
    """
    try:
        yield
    except (RetryableError, TerminatedError, MemoryError):
        # A signal may come at any moment, and is no fault of the file.
        raise
    except Exception as error:
        raise ConfigurationError(f"{words}: {first_line(error)}") from error


def list_files(folder: Path) -> list[Path]:
    """The files that make up a checkpoint, in the order in which `hash_checkpoint` reads them."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hash_checkpoint(folder: Path) -> str:
    """sha256 over the names and contents of all files: equal if and only if the checkpoints are."""
    return _hash_files(folder, list_files(folder))


def _hash_files(folder: Path, files: Sequence[Path]) -> str:
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
