import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_checkpoint, hash_weights, list_files, resolve_base
from jobs.settings import PROJECT_ROOT
from tests.shop import TinyModels

SETTING = "CATALOG_ENCODER_BASE"
RESOLVE = f"""
import sys
from jobs.errors import PermanentError
from jobs.models.checkpoint import resolve_base
try:
    print(resolve_base(sys.argv[1], "{SETTING}"))
except PermanentError as error:
    print("refused:", error)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "sub" / "vocabulary.txt").write_text("red\nblue")
    return folder


def resolve_elsewhere(base: str, hub_cache: Path, environment: Mapping[str, str]) -> str:
    """The answer of a fresh process, since the hub's client reads its environment when it is imported."""
    answer = subprocess.run(
        [sys.executable, "-c", RESOLVE, base],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HF_HOME": str(hub_cache), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert answer.stdout.count("\n") == 1
    return answer.stdout


def test_a_directory_is_taken_as_it_is(checkpoint: Path) -> None:
    assert resolve_base(str(checkpoint), SETTING) == checkpoint


@pytest.mark.parametrize("base", ["./no/such", "/no/such", "~/no-such-folder", "nowhere", "a/b/c", "", "https://hub/a"])
def test_what_is_neither_directory_nor_hub_id_is_named_with_its_setting(base: str) -> None:
    with pytest.raises(PermanentError, match=SETTING) as caught:
        resolve_base(base, SETTING)
    assert base in str(caught.value)


def test_pickled_weights_are_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(PermanentError, match=r"CATALOG_ENCODER_BASE.*no \*\.safetensors.*save_pretrained"):
        resolve_base(str(checkpoint), SETTING)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_without_network_says_what_to_do(offline: bool, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        environment = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}
        answer = resolve_elsewhere("openai/clip-vit-base-patch32@main", tmp_path, environment)
    assert answer.startswith(f"refused: {SETTING}=openai/clip-vit-base-patch32@main: cannot be downloaded")
    assert "hf download openai/clip-vit-base-patch32 --local-dir FOLDER" in answer
    assert f"set {SETTING}=FOLDER" in answer


def test_a_hub_id_that_was_downloaded_before_needs_no_network(tmp_path: Path, tiny_models: TinyModels) -> None:
    repository = tmp_path / "hub" / "models--shop--encoder"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_models.encoder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    assert resolve_elsewhere("shop/encoder", tmp_path, {"HF_HUB_OFFLINE": "1"}) == f"{snapshot}\n"


def test_copies_have_one_hash(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy, copy_function=shutil.copyfile)
    assert hash_checkpoint(copy) == hash_checkpoint(checkpoint)
    assert [path.relative_to(copy) for path in list_files(copy)] == [
        path.relative_to(checkpoint) for path in list_files(checkpoint)
    ]


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda folder: (folder / "model.safetensors").write_bytes(b"weightz"),
    "a byte moves to the next file": lambda folder: (
        (folder / "config.json").write_text("{"),
        (folder / "model.safetensors").write_bytes(b"}weights"),
    ),
    "a name": lambda folder: (folder / "config.json").rename(folder / "konfig.json"),
    "a folder": lambda folder: (folder / "sub").rename(folder / "other"),
    "another level": lambda folder: (folder / "sub" / "vocabulary.txt").rename(folder / "vocabulary.txt"),
    "a file more": lambda folder: (folder / "empty").touch(),
    "a file less": lambda folder: (folder / "config.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_gives_another_hash(checkpoint: Path, change: Callable[[Path], object]) -> None:
    before = hash_checkpoint(checkpoint)
    change(checkpoint)
    assert hash_checkpoint(checkpoint) != before


def test_the_hash_of_the_weights_is_that_of_the_weights_alone(checkpoint: Path) -> None:
    before = hash_weights(checkpoint)
    (checkpoint / "config.json").write_text('{"other": 1}')
    assert hash_weights(checkpoint) == before
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert hash_weights(checkpoint) != before
