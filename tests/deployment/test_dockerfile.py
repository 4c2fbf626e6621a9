import re

import pytest

from jobs.settings import PROJECT_ROOT
from tests.deployment.compose_file import OWN_IMAGES, SERVICES

DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")
COPIED = [
    source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]
]
IMAGES = ("airflow", "worker")


def read_environment() -> dict[str, str]:
    block = re.search(r"^ENV (.+?[^\\])\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert block
    return dict(word.split("=", 1) for word in block[1].replace("\\\n", " ").split())


def test_the_base_is_pinned_and_of_a_supported_python() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    bases = {base for base, _ in stages} - {name for _, name in stages} - {"scratch"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", bases.pop())


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_an_ordinary_user(image: str) -> None:
    stage = DOCKERFILE.partition(f" AS {image}\n")[2].partition("\nFROM ")[0]
    users = re.findall(r"^USER (\d+)", stage, re.MULTILINE)
    assert users
    assert int(users[-1]) > 0


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_exists_and_reaches_docker(source: str) -> None:
    assert (PROJECT_ROOT / source).exists()
    assert f"!{source}" in (PROJECT_ROOT / ".dockerignore").read_text().splitlines()


def test_nothing_else_reaches_docker() -> None:
    lines = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    assert sorted(rule[1:] for rule in rules if rule.startswith("!")) == sorted(COPIED)


def test_requirements_come_before_the_code_and_are_locked() -> None:
    slow, code = DOCKERFILE.split(" AS code\n")
    assert "COPY jobs" in code
    for stage in slow.split("uv pip install")[1:]:
        assert "--require-hashes --constraint=requirements.lock" in stage
    assert re.findall(r"--requirement=(\S+)", slow)[1:] == [
        "requirements-airflow.txt",
        "requirements-compose.txt",
        "requirements.txt",
    ]


def read_pins(name: str) -> dict[str, str]:
    """The versions of a requirements file by package; markers, comments and hashes are left out."""
    lines = (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [
        line.split("#")[0].split(";")[0].strip(" \\").split("==")
        for line in lines
        if line and not line.startswith(("#", "-", " "))
    ]
    assert all(len(pin) == 2 for pin in pins), f"{name} has a requirement without a version"
    return {package.split("[")[0].lower().replace("_", "-"): version for package, version in pins}


@pytest.mark.parametrize("name", [path.name for path in PROJECT_ROOT.glob("requirements*.txt")])
def test_the_lock_holds_what_is_named(name: str) -> None:
    named, locked = read_pins(name), read_pins("requirements.lock")
    assert named
    assert named.items() <= locked.items()


def test_every_locked_version_has_hashes() -> None:
    entries = re.split(r"^(?=[\w.-]+(?:\[[\w,]+\])?==)", (PROJECT_ROOT / "requirements.lock").read_text(), flags=re.M)[
        1:
    ]
    assert len(entries) > 200
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_folders_of_volumes_are_made_in_the_image() -> None:
    targets = {mount.split(":")[1] for name in OWN_IMAGES for mount in SERVICES[name].get("volumes", [])}
    made = re.findall(r"install --directory \S+ \S+ (.+)", DOCKERFILE)[0].split()
    assert targets <= set(made)


def test_paths_of_image_and_compose_agree() -> None:
    environment = read_environment()
    for name, volume in (("AIRFLOW_HOME", "/opt/airflow/logs"), ("CATALOG_MODEL_CACHE", "/var/cache/catalog")):
        assert volume.startswith(environment[name])
    assert environment["HF_HOME"].startswith(environment["CATALOG_MODEL_CACHE"])
    variables = SERVICES["init"]["environment"]
    assert variables["AIRFLOW__CORE__DAGS_FOLDER"] == f"{environment['PYTHONPATH']}/dags"
    assert variables["AIRFLOW__CORE__PLUGINS_FOLDER"] == f"{environment['PYTHONPATH']}/plugins"
