"""Check that the requirements of the image `airflow` suffice for the pages, the DAGs and the commands of `init`."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.settings import PROJECT_ROOT

FILES = ("requirements-airflow.txt", "requirements-compose.txt")
IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, sys, warnings
from pathlib import Path
from packaging.utils import canonicalize_name

installed, dags = set(sys.argv[2:]), Path(sys.argv[1])
owners = importlib.metadata.packages_distributions()

class Blocker:
    def find_spec(self, name, path=None, target=None):
        distributions = {canonicalize_name(owner) for owner in owners.get(name.partition(".")[0], ())}
        if distributions and not distributions & installed:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

warnings.simplefilter("ignore")
sys.meta_path.insert(0, Blocker())
sys.path.append(str(dags))
import catalog_airflow.pages.app
catalog_airflow.pages.app.create_pages_app()
for module in pkgutil.iter_modules(catalog_airflow.pages.__path__):
    importlib.import_module(f"catalog_airflow.pages.{module.name}")
for file in dags.glob("*.py"):
    importlib.import_module(file.stem)
import jobs.commands.setup
# Imported by functions: clients of the bucket, and Airflow's driver for Postgres.
import asyncpg, boto3, obstore.auth.boto3, obstore.store
"""


@pytest.fixture(scope="module")
def installed() -> set[str]:
    """The distributions that the files name, and all that these require."""
    lines = [line for name in FILES for line in (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()]
    named = [Requirement(line.partition("  #")[0]) for line in lines if not line.startswith("#")]
    waiting, seen = [(one.name, extra) for one in named for extra in ("", *one.extras)], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for needed in map(Requirement, importlib.metadata.requires(name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), further) for further in ("", *needed.extras)]
    return {"catalog-tagger", *(canonicalize_name(name) for name, _ in seen)}


def test_pages_dags_and_init_need_nothing_else(installed: set[str], tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(PROJECT_ROOT / "dags"), *installed],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join((str(PROJECT_ROOT), str(PROJECT_ROOT / "plugins"))),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_nothing_heavy_is_installed(installed: set[str]) -> None:
    assert "apache-airflow" in installed
    assert not installed & {"torch", "torchvision", "openvino", "nncf", "transformers", "timm", "scipy", "scikit-learn"}
