from pathlib import Path

from jobs.local.private_files import write_private_file


def test_file_is_replaced_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old and much longer")
    path.chmod(0o644)
    write_private_file(path, "new")

    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]
