import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import code_version
from jobs.code_version import LIBRARIES, RELEASE, read_code_version, read_library_versions
from jobs.settings import PROJECT_ROOT


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    read_code_version.cache_clear()
    yield
    read_code_version.cache_clear()


def test_a_docker_image_returns_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_VERSION", "abc123")
    assert read_code_version() == "abc123"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_clone_returns_the_commit_of_its_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.test")
        answer = subprocess.run(["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return answer.stdout.strip()

    monkeypatch.setattr(code_version, "PROJECT_ROOT", tmp_path)
    monkeypatch.delenv("CODE_VERSION", raising=False)
    run_git("init")
    (tmp_path / "file").write_text("one")
    run_git("add", "file")
    run_git("commit", "--message=one")
    assert read_code_version() == run_git("rev-parse", "HEAD")[:12]
    read_code_version.cache_clear()
    (tmp_path / "file").write_text("two")
    assert read_code_version().endswith("-dirty")


def test_without_a_repository_the_release_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_version, "PROJECT_ROOT", tmp_path)
    monkeypatch.delenv("CODE_VERSION", raising=False)
    assert read_code_version() == RELEASE
    assert tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"] == RELEASE


def test_library_versions_are_returned() -> None:
    assert list(read_library_versions()) == list(LIBRARIES)
