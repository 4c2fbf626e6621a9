import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from catalog_airflow.defaults import TAGGING_POOL

from jobs.cli import app
from jobs.database.migrations import check_pgvector_version
from jobs.database.vector_indexes import MAINTENANCE_BYTES
from jobs.settings import PROJECT_ROOT, VARIABLES
from tests.deployment.compose_file import (
    COMPOSE,
    COMPOSE_TEXT,
    ONE_SHOTS,
    OWN_IMAGES,
    SERVICES,
    find_calls,
    find_variables,
)

PATHS_OF_THE_HOST = {"CATALOG_PLACEMENT", "CATALOG_PYTHON"}
"""They mean nothing in a container."""
AIRFLOW_SETTINGS = {variable for variable, (group, _) in VARIABLES.items() if group == "airflow"}
WORKERS = ("airflow-worker", "airflow-worker-gpu")
SECRET = re.compile("PASSWORD|SECRET|_KEY")


def read_tag(service: str) -> str:
    _, _, tag = SERVICES[service]["image"].partition(":")
    return str(tag)


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_a_full_version(name: str) -> None:
    assert re.match(r"\d+\.\d+", read_tag(name))


def test_our_images_bear_the_version_of_the_project_and_are_built_once() -> None:
    version = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = {service["image"]: service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert built == {f"catalog-tagger-{target}:{version}": target for target in ("airflow", "worker")}
    assert len([service for service in SERVICES.values() if "build" in service]) == len(built)
    assert {SERVICES[name]["image"] for name in OWN_IMAGES} == built.keys()


def test_jobs_run_in_the_image_with_torch() -> None:
    with_torch = {name for name in OWN_IMAGES if "-worker:" in SERVICES[name]["image"]}
    assert with_torch == {*WORKERS, "query"}


def test_postgres_has_a_pgvector_that_the_migration_accepts() -> None:
    assert check_pgvector_version(None, read_tag("postgres").split("-")[0])


def test_postgres_has_the_shared_memory_of_the_largest_index_build() -> None:
    assert int(SERVICES["postgres"]["shm_size"].removesuffix("gb")) * 2**30 >= MAINTENANCE_BYTES[1]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_tells_its_health_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOTS:
        assert service["restart"] == "no"
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_exist_and_can_meet_their_condition(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        condition = "service_completed_successfully" if needed in ONE_SHOTS else "service_healthy"
        assert how == {"condition": condition}
        assert needed in SERVICES


@pytest.mark.parametrize("name", sorted(OWN_IMAGES - ONE_SHOTS))
def test_nothing_of_ours_starts_before_the_databases_are_ready(name: str) -> None:
    assert "init" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("name", sorted(OWN_IMAGES))
def test_our_containers_can_gain_no_rights(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_published_ports_are_open_to_this_host_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{CATALOG_\w+_PORT:-(\d+)\}:\1", port) for port in ports)


def test_every_variable_has_a_default_or_is_required() -> None:
    variables = find_variables()
    assert len(variables) > 20
    for variable in variables:
        assert variable.operator, f"{variable.name} may be missing without a word"
        if variable.operator == ":?":
            assert variable.rest == "see .env.example"


def test_secrets_have_no_default() -> None:
    secrets = [variable for variable in find_variables() if SECRET.search(variable.name)]
    assert len({variable.name for variable in secrets}) >= 10
    assert {variable.operator for variable in secrets} == {":?"}


def test_no_secret_is_written_out() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not SECRET.search(name) or value.startswith("${"), name
    passwords = re.findall(r"://\w*:([^@\s]+)@", re.sub(r"\$\{[^{}]*\}", "$", COMPOSE_TEXT))
    assert passwords == ["$"] * 3


def test_host_paths_and_volumes_exist() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    paths = [mount for mount in mounts if mount.startswith(".")]
    assert paths
    assert all((PROJECT_ROOT / path).is_file() for path in paths)
    assert set(mounts) - set(paths) == set(COMPOSE["volumes"])


def test_jobs_that_are_run_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = {call[0] for call in find_calls("python -m jobs")}
    assert called
    assert called <= set(commands)


def test_the_pool_is_the_one_that_tasks_use() -> None:
    assert [call[2] for call in find_calls("airflow") if call[0] == "pools"] == [TAGGING_POOL]


@pytest.mark.parametrize("name", ["init", "airflow-api-server", *WORKERS])
def test_jobs_get_every_setting_and_no_other(name: str) -> None:
    passed = {variable for variable in SERVICES[name]["environment"] if variable.startswith("CATALOG_")}
    assert passed == VARIABLES.keys() - {"CATALOG_MODEL_CACHE", *PATHS_OF_THE_HOST}


@pytest.mark.parametrize("name", ["init", "airflow-api-server", *WORKERS])
def test_jobs_read_the_gate_policy_of_the_host(name: str) -> None:
    mounted = {config["target"]: COMPOSE["configs"][config["source"]]["file"] for config in SERVICES[name]["configs"]}
    # Without an override, an empty file is mounted.
    assert mounted == {SERVICES[name]["environment"]["CATALOG_GATE_POLICY"]: "${CATALOG_GATE_POLICY:-/dev/null}"}


def test_passwords_of_storage_stay_with_those_who_need_them() -> None:
    for name in ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"):
        own = {variable for variable in SERVICES[name]["environment"] if variable.startswith(("AWS_", "CATALOG_"))}
        assert own == (AIRFLOW_SETTINGS - PATHS_OF_THE_HOST if name == "airflow-dag-processor" else set())


def test_gpus_are_taken_by_the_profile_alone() -> None:
    with_gpu = [name for name, service in SERVICES.items() if "deploy" in service]
    assert (
        with_gpu == [name for name, service in SERVICES.items() if service.get("profiles") == ["gpu"]] == [WORKERS[1]]
    )
    devices = SERVICES[WORKERS[1]]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert SERVICES[WORKERS[1]]["environment"]["CATALOG_DEVICE"] == "cuda"


def test_workers_can_be_scaled() -> None:
    for name in WORKERS:
        assert not {"container_name", "hostname", "ports"} & set(SERVICES[name])


def run_compose(environment_file: Path) -> "subprocess.CompletedProcess[str]":
    command = ["docker", "compose", "--env-file", str(environment_file), "--profile", "gpu", "config", "--quiet"]
    host = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
    return subprocess.run(command, cwd=PROJECT_ROOT, env=host, capture_output=True, text=True, check=False)


def has_docker_compose() -> bool:
    docker = shutil.which("docker")
    command = [docker or "false", "compose", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_docker_compose(), reason="`docker compose` is not on this machine")
def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    names = {variable.name for variable in find_variables() if variable.operator == ":?"}
    (tmp_path / "full").write_text("".join(f"{name}=x\n" for name in names))
    accepted = run_compose(tmp_path / "full")
    assert (accepted.returncode, accepted.stderr) == (0, "")

    (tmp_path / "empty").write_text("")
    refused = run_compose(tmp_path / "empty")
    assert refused.returncode != 0
    assert "see .env.example" in refused.stderr
