"""The command ``catalog`` that ``make install`` installs."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install a copy of the project into a new virtual environment by the rule of the Makefile."""
    folder = tmp_path_factory.mktemp("project")
    for file in (PROJECT_ROOT / "pyproject.toml", PROJECT_ROOT / "Makefile", *PROJECT_ROOT.glob("requirements*")):
        shutil.copy(file, folder)
    for name in ("jobs", "sql"):
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = folder / ".venv"
    venv.create(environment, symlinks=True)
    libraries = next(environment.glob("lib/python*/site-packages"))
    # The requirements are those of this environment.
    (libraries / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (environment / "bin" / "uv").symlink_to(Path(sys.executable).parent / "uv")
    (environment / ".ready").touch()
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(["make", "install"], cwd=folder, env=variables, check=True, capture_output=True, timeout=120)
    yield folder
    shutil.rmtree(folder)


def run(installed: Path, *words: str, **variables: str) -> str:
    """Run the command in a folder without code, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [str(installed / ".venv/bin/catalog"), *words],
        cwd=installed / ".venv",
        env=environment | variables,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return finished.stdout


def test_it_runs_the_installed_copy_from_any_folder(installed: Path) -> None:
    assert run(installed, "--version").startswith("catalog 0.1.0, code ")
    assert "Usage: catalog ingest" in run(installed, "ingest", "--help")


def test_make_installs_it_only_once(installed: Path) -> None:
    again = subprocess.run(["make", "--question", "install"], cwd=installed, check=False, timeout=60)
    assert again.returncode == 0


def test_a_shell_completes_commands_and_options(installed: Path) -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        variables = {"_CATALOG_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return run(installed, **variables).split()

    assert complete("catalog mod") == ["models"]
    assert complete("catalog models ") == ["list", "show"]
    assert "--plan" in complete("catalog ingest --")
    assert "complete -o default -F _catalog_completion catalog" in run(installed, "--show-completion", "bash")


def test_without_the_command_there_is_nothing_to_complete() -> None:
    words = [sys.executable, "-m", "jobs", "--help"]
    shown = subprocess.run(words, cwd=PROJECT_ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert "--install-completion" not in shown
