"""Download checkpoints from a local server with the real hub client."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fixtures.hub_server import TOKEN, HubServer, hash_commit, run_hub_server
from fixtures.shop import TinyModels
from jobs.errors import PermanentError
from jobs.models.checkpoint import resolve_base
from jobs.models.device import Device
from jobs.models.encoder import load_image_encoder, load_text_encoder

SETTING = "CATALOG_ENCODER_BASE"
BASE = "shop/encoder"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "hub-server"
    folder.mkdir()
    with run_hub_server(folder) as server:
        yield server


@pytest.fixture
def weights(tiny_models: TinyModels) -> dict[str, torch.Tensor]:
    return load_file(tiny_models.encoder / "model.safetensors")


@pytest.fixture
def revision(hub: HubServer, tiny_models: TinyModels) -> Path:
    """Serve the encoder on the branch main, without its weights and with unneeded files."""
    folder = hub.folder / BASE / "main"
    shutil.copytree(tiny_models.encoder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in ("tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "onnx/config.json", "old/pytorch_model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"unneeded")
    return folder


def resolve(hub: HubServer, home: Path, base: str = BASE, token: str = "", offline: bool = False) -> str:
    """Return the folder or the error. Patch the settings that the client reads from its environment at import."""
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    with (
        patch.multiple(constants, ENDPOINT=hub.url, HUGGINGFACE_CO_URL_TEMPLATE=template),
        patch.multiple(constants, HF_HUB_CACHE=str(home / "hub"), HF_HUB_OFFLINE=offline),
        patch.dict(os.environ, {"HF_TOKEN": token}),
    ):
        try:
            return str(resolve_base(base, SETTING, home / "cache"))
        except PermanentError as error:
            return f"refused: {error}"


def assert_loads(folder: Path, expected: Mapping[str, torch.Tensor], original: Path) -> None:
    """Check that a folder has the expected weights, and that both towers compute the same vectors as the original."""
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    assert {name: (values.dtype, values.shape) for name, values in found.items()} == {
        name: (values.dtype, values.shape) for name, values in expected.items()
    }
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    device = Device(torch.device("cpu"), torch.float32)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    ours, theirs = (load_image_encoder(path, device).predict(pixels) for path in (folder, original))
    assert torch.allclose(ours, theirs, atol=1e-5)
    texts = [load_text_encoder(path, device).embed(["red striped dress"]) for path in (folder, original)]
    assert np.allclose(texts[0], texts[1], atol=1e-5)


def test_pickled_weights_are_converted_once(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tiny_models: TinyModels, tmp_path: Path
) -> None:
    # As in openai/clip-vit-base-patch32, the file also contains buffers, which the model creates by itself.
    buffers = {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    torch.save(weights | buffers, revision / "pytorch_model.bin")
    folder = Path(resolve(hub, tmp_path))
    assert folder.is_relative_to(tmp_path / "cache" / "converted")
    assert not list(folder.glob("*.bin"))
    assert hub.downloads & {"pytorch_model.bin", "config.json"} == {"pytorch_model.bin", "config.json"}
    assert not hub.downloads & {"tf_model.h5", "flax_model.msgpack", "model.onnx"}
    assert not any("/old/" in request or "/onnx/" in request for request in hub.requests)
    assert_loads(folder, weights | buffers, tiny_models.encoder)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve(hub, tmp_path) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_safetensors_are_used_without_conversion(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tiny_models: TinyModels, tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    folder = Path(resolve(hub, tmp_path))
    assert folder.name == hash_commit(revision)
    assert not (tmp_path / "cache").exists()
    assert_loads(folder, weights, tiny_models.encoder)


def test_only_safetensors_are_downloaded_if_both_exist(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    torch.save(weights, revision / "pytorch_model.bin")
    for name in ("model.fp16.safetensors", "open_clip_model.safetensors"):
        (revision / name).write_bytes(b"unneeded")
    folder = Path(resolve(hub, tmp_path))
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert not any(".bin" in request or "open_clip" in request for request in hub.requests)


def write_shards(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write two pickled files and their index."""
    names = sorted(weights)
    shards = {f"pytorch_model-0000{number + 1}-of-00002.bin": names[number::2] for number in range(2)}
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_shards_are_converted_together(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tiny_models: TinyModels, tmp_path: Path
) -> None:
    write_shards(revision, weights)
    folder = Path(resolve(hub, tmp_path))
    assert sorted(path.name for path in folder.glob("*.safetensors*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert_loads(folder, weights, tiny_models.encoder)


def test_a_revision_is_downloaded_by_its_name(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    tagged = Path(shutil.copytree(revision, revision.with_name("v2")))
    changed = {name: values + 1 for name, values in weights.items()}
    save_file(changed, tagged / "model.safetensors", {"format": "pt"})
    found = load_file(Path(resolve(hub, tmp_path, f"{BASE}@v2")) / "model.safetensors")
    assert all(torch.equal(found[name], changed[name]) for name in changed)
    commit = hash_commit(revision)
    assert resolve(hub, tmp_path, f"{BASE}@{commit}").endswith(commit)
    assert resolve(hub, tmp_path, f"{BASE}@v3") == (
        f"refused: {SETTING}={BASE}@v3: {BASE} has no revision v3. Check the name after the @"
    )


def test_the_error_of_a_restricted_repository_says_how_to_get_access(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    hub.gated.add(BASE)
    for token in ("", "hf_of_somebody_else"):
        refused = resolve(hub, tmp_path, token=token)
        assert refused.startswith(f"refused: {SETTING}={BASE}: the hub restricts access. Accept its conditions")
        assert "set HF_TOKEN" in refused
    assert Path(resolve(hub, tmp_path, token=TOKEN)).is_dir()


@pytest.mark.parametrize("token", ["", TOKEN])
def test_the_error_names_a_missing_repository(hub: HubServer, tmp_path: Path, token: str) -> None:
    refused = resolve(hub, tmp_path, "shop/nothing", token)
    assert refused.startswith(f"refused: {SETTING}=shop/nothing: the hub has no such repository, or it is private")


def test_an_interrupted_download_is_resumed(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    # The client writes downloads in blocks of this size, so half of the file must be larger than a block.
    large = weights | {"unneeded": torch.rand(3 * constants.DOWNLOAD_CHUNK_SIZE // 4)}
    save_file(large, revision / "model.safetensors", {"format": "pt"})
    hub.cut.add("model.safetensors")
    folder = Path(resolve(hub, tmp_path))
    first, second = (request for request in hub.requests if request.startswith("GET /cdn/"))
    assert first == f"GET /cdn/{BASE}/main/model.safetensors"
    assert second == f"{first} bytes={constants.DOWNLOAD_CHUNK_SIZE}-"
    assert (folder / "model.safetensors").read_bytes() == (revision / "model.safetensors").read_bytes()


def test_a_downloaded_repository_needs_no_network(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    folder = resolve(hub, tmp_path)
    count = len(hub.requests)
    assert resolve(hub, tmp_path, offline=True) == folder
    assert len(hub.requests) == count
    refused = resolve(hub, tmp_path, "shop/another", offline=True)
    assert refused.startswith(f"refused: {SETTING}=shop/another: cannot be downloaded")
    assert f"`hf download shop/another --local-dir FOLDER`, copy the folder here and set {SETTING}=FOLDER" in refused


def test_an_incomplete_download_is_not_used(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    folder = Path(resolve(hub, tmp_path))
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    assert "cannot be downloaded" in resolve(hub, tmp_path, offline=True)
    assert resolve(hub, tmp_path) == str(folder)


def test_the_layout_of_open_clip_is_refused_with_advice(hub: HubServer, tmp_path: Path) -> None:
    folder = hub.folder / BASE / "main"
    folder.mkdir(parents=True)
    for name in (
        "open_clip_config.json",
        "tokenizer.json",
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    ):
        (folder / name).write_text("{}")
    refused = resolve(hub, tmp_path)
    assert refused.startswith(f"refused: {SETTING}={BASE} has only the layout of OpenCLIP")
    assert "docs/models.md" in refused
    assert not hub.downloads & {"open_clip_model.safetensors", "open_clip_pytorch_model.bin"}


def test_a_checkpoint_that_needs_code_is_refused(
    hub: HubServer, revision: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(weights, revision / "model.safetensors", {"format": "pt"})
    (revision / "config.json").write_text(
        json.dumps({"model_type": "of-my-own", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}})
    )
    refused = resolve(hub, tmp_path)
    assert refused.startswith(f"refused: {SETTING}={BASE} needs its own Python code (auto_map in config.json)")
