"""Find the build of a version for this machine."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from sqlalchemy import text

from fixtures.champions import make_champion
from fixtures.shop import Shop, TinyModels
from jobs.database.model_builds import BuildChoice
from jobs.errors import ConfigurationError, PermanentError
from jobs.models.builds import choose_builds, ensure_build, fetch_build, find_device_class
from jobs.models.registry import FILE_LIST
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
    words = rf"^classifier {version.model_version_id} has no build for this machine\. Run `python -m jobs build \d+`$"
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
