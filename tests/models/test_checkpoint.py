import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fixtures.shop import TinyModels
from jobs.errors import PermanentError
from jobs.models.checkpoint import hash_checkpoint, hash_weights, list_files, resolve_base
from jobs.models.classifier import load_classifier
from jobs.models.device import Device
from jobs.models.encoder import load_image_encoder, load_text_encoder
from jobs.settings import PROJECT_ROOT

NO_CHECKPOINT = "contains no checkpoint. It needs the layout of Transformers: config.json with model.safetensors"
SETTING = "CATALOG_ENCODER_BASE"
RESOLVE = f"""
import sys
from pathlib import Path
from jobs.errors import PermanentError
from jobs.models.checkpoint import resolve_base
try:
    print(resolve_base(sys.argv[1], "{SETTING}", Path("cache")))
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
    """Resolve a base in a new process, because the hub client reads its environment at import. Return the output."""
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


def test_a_directory_is_used_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    assert resolve_base(str(checkpoint), SETTING, tmp_path / "cache") == checkpoint
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("base", ["./no/such", "/no/such", "~/no-such-folder", "nowhere", "a/b/c", "", "https://hub/a"])
def test_the_error_for_other_text_names_the_setting(base: str, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=SETTING) as caught:
        resolve_base(base, SETTING, tmp_path)
    assert base in str(caught.value)


def test_pickled_weights_of_a_folder_are_converted_elsewhere(
    tiny_models: TinyModels, tmp_path: Path, checkpoint: Path
) -> None:
    weights = load_file(tiny_models.classifier / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    before = hash_checkpoint(checkpoint)
    folder = resolve_base(str(checkpoint), SETTING, tmp_path / "cache")
    assert folder.is_relative_to(tmp_path / "cache" / "converted")
    assert resolve_base(str(checkpoint), SETTING, tmp_path / "cache") == folder
    assert hash_checkpoint(checkpoint) == before
    assert load_file(folder / "model.safetensors").keys() == weights.keys()
    torch.save({"changed": torch.ones(1)}, checkpoint / "pytorch_model.bin")
    other = resolve_base(str(checkpoint), SETTING, tmp_path / "cache")
    assert load_file(other / "model.safetensors").keys() == {"changed"}


@pytest.mark.parametrize(
    ("removed", "added", "words"),
    [
        (
            "model.safetensors",
            "tf_model.h5",
            NO_CHECKPOINT,
        ),
        ("model.safetensors", "open_clip_config.json", "has only the layout of OpenCLIP"),
        (
            "config.json",
            "notes.txt",
            NO_CHECKPOINT,
        ),
    ],
)
def test_a_folder_in_another_layout_is_refused(
    checkpoint: Path, tmp_path: Path, removed: str, added: str, words: str
) -> None:
    (checkpoint / removed).unlink()
    (checkpoint / added).write_text("{}")
    with pytest.raises(PermanentError, match=f"{SETTING}.*{words}.*docs/models.md"):
        resolve_base(str(checkpoint), SETTING, tmp_path / "cache")


@pytest.mark.parametrize("shards", [[], ["pytorch_model-00001-of-00002.bin"]])
def test_a_folder_with_missing_shards_is_refused(checkpoint: Path, tmp_path: Path, shards: list[str]) -> None:
    (checkpoint / "model.safetensors").unlink()
    names = {"first": "pytorch_model-00001-of-00002.bin", "second": "../outside-00002-of-00002.bin"}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    for name in shards:
        torch.save({"first": torch.ones(1)}, checkpoint / name)
    with pytest.raises(
        PermanentError, match=r"lacks \.\./outside-00002-of-00002\.bin" if shards else "contains no checkpoint"
    ):
        resolve_base(str(checkpoint), SETTING, tmp_path / "cache")


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_error_says_what_to_do(offline: bool, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        environment = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}
        answer = resolve_elsewhere("openai/clip-vit-base-patch32@main", tmp_path, environment)
    assert answer.startswith(f"refused: {SETTING}=openai/clip-vit-base-patch32@main: cannot be downloaded")
    assert "hf download openai/clip-vit-base-patch32 --local-dir FOLDER" in answer
    assert f"set {SETTING}=FOLDER" in answer


def test_a_downloaded_hub_id_needs_no_network(tmp_path: Path, tiny_models: TinyModels) -> None:
    repository = tmp_path / "hub" / "models--shop--encoder"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_models.encoder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    assert resolve_elsewhere("shop/encoder", tmp_path, {"HF_HUB_OFFLINE": "1"}) == f"{snapshot}\n"


def test_copies_have_the_same_hash(checkpoint: Path, tmp_path: Path) -> None:
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
def test_every_change_changes_the_hash(checkpoint: Path, change: Callable[[Path], object]) -> None:
    before = hash_checkpoint(checkpoint)
    change(checkpoint)
    assert hash_checkpoint(checkpoint) != before


def test_the_hash_of_the_weights_ignores_other_files(checkpoint: Path) -> None:
    before = hash_weights(checkpoint)
    (checkpoint / "config.json").write_text('{"other": 1}')
    assert hash_weights(checkpoint) == before
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert hash_weights(checkpoint) != before


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_code_in_a_checkpoint_is_never_run(
    kind: str, tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(getattr(tiny_models, kind), tmp_path / kind)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\nclass Own: pass\n")
    parts = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor", "AutoTokenizer")
    for file in folder.glob("*config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": dict.fromkeys(parts, "mine.Own")}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    device = Device(torch.device("cpu"), torch.float32)
    pixels = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    if kind == "classifier":
        assert load_classifier(folder, device).predict(pixels).shape[0] == 1
    else:
        assert load_image_encoder(folder, device).predict(pixels).shape[0] == 1
        assert load_text_encoder(folder, device).embed(["dress"]).shape[0] == 1
    assert not (tmp_path / "was-run").exists()
