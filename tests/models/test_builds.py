"""Find the build of a version for this machine."""

import os
import shutil
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from sqlalchemy import text

from fixtures.champions import make_champion
from fixtures.job_processes import wait_until
from fixtures.shop import Shop, TinyModels
from jobs.database.model_builds import BuildChoice, lock_builds
from jobs.errors import ConfigurationError, PermanentError
from jobs.models.builds import choose_builds, ensure_build, fetch_build, find_build, find_device_class
from jobs.models.image_model import PROGRAM_FILE
from jobs.models.registry import FILE_LIST
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.retrain.optimize.optimize import make_missing_build
from jobs.settings import PROJECT_ROOT
from jobs.storage.locations import S3Uri


def test_settings_name_the_device() -> None:
    assert [find_device_class(device) for device in ("cpu", "cuda")] == ["cpu", "cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_recognized_without_torch() -> None:
    program = (
        "import sys; from jobs.models.builds import find_device_class; print(find_device_class('auto'))\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout) == (0, "cpu\n"), finished.stderr


def test_settings_choose_engine_and_precision(shop: Shop) -> None:
    automatic = shop.with_settings(device="cpu", engine="auto", precision="auto").settings.compute
    assert choose_builds(automatic) == BuildChoice("cpu", None, None)
    chosen = shop.with_settings(device="cpu", engine="torch", precision="bf16").settings.compute
    assert choose_builds(chosen) == BuildChoice("cpu", "torch", "bf16")


def test_a_build_that_cannot_be_made_is_one_line(shop: Shop, tiny_models: TinyModels) -> None:
    version = make_champion(shop.connections, tiny_models.classifier, "classifier")
    with shop.connections.engine.begin() as connection:
        connection.execute(text("DELETE FROM catalog.model_builds"))
    shop.connections.store.write(S3Uri.parse(version.artifact_uri) / "config.json", b"{}")
    words = rf"^classifier {version.model_version_id} has no build for this machine\. Run `catalog build \d+`$"
    with patch.dict(os.environ, shop.environment), pytest.raises(ConfigurationError, match=words):
        ensure_build(shop.connections, version)


def test_a_build_with_other_files_is_refused(shop: Shop, tiny_models: TinyModels) -> None:
    version = make_champion(shop.connections, tiny_models.classifier, "classifier")
    build, folder = fetch_build(shop.connections, version)
    location = S3Uri.parse(build.artifact_uri or "")
    shop.connections.store.write(location / FILE_LIST, b"build.json")
    (folder / "build.json").unlink()
    with pytest.raises(PermanentError, match=r"torch fp32 on cpu of classifier .* do not match the registered hash"):
        fetch_build(shop.connections, version)


def test_lost_files_of_a_build_are_made_again(shop: Shop, tiny_models: TinyModels) -> None:
    version = make_champion(shop.connections, tiny_models.encoder, "encoder")
    connections = shop.with_settings(device="cpu", engine="torch", precision="bf16")
    # An encoder without labels has only builds in float32, so nobody asks for bf16 twice.
    assert make_missing_build(connections, version.model_version_id, load_gate_policy()) is not None
    assert make_missing_build(connections, version.model_version_id, load_gate_policy()) is None
    build, _ = fetch_build(connections, version)
    assert build.precision == "fp32"
    location = S3Uri.parse(build.artifact_uri or "")
    shop.connections.store.write(location / FILE_LIST, b"")
    shutil.rmtree(connections.settings.locations.model_cache)
    with pytest.raises(PermanentError, match=rf"Run `catalog build {version.model_version_id} --again`"):
        fetch_build(connections, version)
    make_missing_build(connections, version.model_version_id, load_gate_policy(), again=True)
    _, folder = fetch_build(connections, version)
    assert (folder / PROGRAM_FILE).is_file()


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_a_processor_without_bf16_does_not_emulate_it(
    shop: Shop, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    version = make_champion(shop.connections, tiny_models.encoder, "encoder")
    connections = shop.with_settings(device="cpu", engine="torch", precision=precision)
    with shop.connections.engine.begin() as connection:
        connection.execute(text("UPDATE catalog.model_builds SET engine = 'torch', precision = 'bf16'"))
    monkeypatch.setattr("jobs.models.device.list_onednn_precisions", lambda: ("bf16",))
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    build = find_build(connections, version.model_version_id)
    assert build is not None
    assert build.precision == "bf16"
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    assert find_build(connections, version.model_version_id) is None
    assert make_missing_build(connections, version.model_version_id, load_gate_policy()) is not None
    build = find_build(connections, version.model_version_id)
    assert build is not None
    assert (build.engine, build.precision) == ("torch", "fp32")


def test_only_one_process_makes_the_builds_of_a_version(shop: Shop) -> None:
    with shop.connections.engine.connect() as holder, shop.connections.engine.connect() as other:
        lock_builds(holder, 1)
        holder.commit()
        attempt = text("SELECT pg_try_advisory_lock(hashtextextended('builds of 1', 0))")
        assert other.scalar(attempt) is False
        holder.detach()
    wait_until(lambda: shop.query("SELECT pg_try_advisory_lock(hashtextextended('builds of 1', 0))") == [(True,)])
