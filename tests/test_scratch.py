import multiprocessing
import os
import time
from pathlib import Path

import pytest

from jobs import scratch
from jobs.scratch import open_scratch


def fill_and_wait(parent: Path) -> None:
    with open_scratch(parent) as folder:
        (folder / "half").write_bytes(b"x")
        os.kill(os.getpid(), 9)


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """The folder of a killed job."""
    process = multiprocessing.get_context("forkserver").Process(target=fill_and_wait, args=(tmp_path,))
    process.start()
    process.join()
    (folder,) = tmp_path.iterdir()
    assert (folder / "files" / "half").exists()
    return folder


def test_folders_of_a_killed_job_are_deleted_by_the_next(
    abandoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", 0)
    with open_scratch(tmp_path):
        assert not abandoned.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_is_kept(abandoned: Path, tmp_path: Path) -> None:
    with open_scratch(tmp_path):
        assert abandoned.exists()


def test_folders_in_use_or_of_other_users_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", 0)
    (tmp_path / "somebody-s").mkdir()
    (tmp_path / "catalog-tagger-old").symlink_to(tmp_path / "somebody-s")
    with open_scratch(tmp_path) as first:
        os.utime(first.parent, (time.time() - 1000, time.time() - 1000))
        with open_scratch(tmp_path) as second:
            assert first.is_dir()
            assert second != first
    assert list((tmp_path / "somebody-s").iterdir()) == []
