"""The files for Kubernetes. Set HELM_CHART to the folder of Airflow's chart to check that it renders them."""

import os
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from catalog_airflow.defaults import TAGGING_POOL

from jobs.settings import PROJECT_ROOT, VARIABLES
from tests.deployment.compose_file import SERVICES

DEPLOY = PROJECT_ROOT / "deploy"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
WORKERS: dict[str, Any] = yaml.safe_load((DEPLOY / "helm-workers.yaml").read_text())
QUERY_SERVICE: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "query-service.yaml").read_text()))
SETS: dict[str, dict[str, Any]] = {workers["queue"]: workers for workers in WORKERS["workers"]["celery"]["sets"]}
PLACEMENT: dict[str, Any] = tomllib.loads((DEPLOY / "placement.toml").read_text())
GUIDE = (PROJECT_ROOT / "docs" / "kubernetes.md").read_text()


def test_every_queue_has_workers_that_scale_by_its_tasks() -> None:
    assert {placement["queue"] for placement in PLACEMENT.values()} | {"default"} == SETS.keys()
    for queue, workers in SETS.items():
        assert f"queue = '{queue}'" in workers["keda"]["query"]
        assert workers["keda"]["enabled"]
    assert SETS["gpu"]["keda"]["minReplicaCount"] == 0
    assert VALUES["config"]["celery"]["worker_concurrency"] == 1


def test_the_hook_prepares_the_databases_as_in_compose() -> None:
    [*_, script] = VALUES["migrateDatabaseJob"]["args"]
    [*_, of_compose] = SERVICES["init"]["command"]
    assert [line for line in script.splitlines() if "python -m" in line or "db migrate" in line] == [
        line.strip() for line in of_compose.splitlines() if "python -m" in line or "db migrate" in line
    ]
    assert f"airflow pools set {TAGGING_POOL} " in script


def test_only_settings_that_exist_are_set() -> None:
    [query, _] = QUERY_SERVICE
    [container] = query["spec"]["template"]["spec"]["containers"]
    sections = (VALUES["env"], container["env"], *(workers.get("env", []) for workers in SETS.values()))
    names = {variable["name"] for section in sections for variable in section}
    assert names <= VARIABLES.keys()


def test_images_have_the_version_of_the_project() -> None:
    version = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"]
    executor = VALUES["config"]["kubernetes_executor"]
    tags = [VALUES["images"]["airflow"]["tag"], WORKERS["images"]["airflow"]["tag"], executor["worker_container_tag"]]
    assert set(tags) == {version}
    [container] = QUERY_SERVICE[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{WORKERS['images']['airflow']['repository']}:{version}"
    assert executor["worker_container_repository"] == WORKERS["images"]["airflow"]["repository"]


def test_the_guide_creates_every_secret_that_is_named() -> None:
    [query, _] = QUERY_SERVICE
    assert query["spec"]["template"]["spec"]["containers"][0]["envFrom"] == yaml.safe_load(VALUES["extraEnvFrom"])
    named = {
        VALUES["fernetKeySecretName"],
        VALUES["data"]["brokerUrlSecretName"],
        *(variable["secretName"] for variable in VALUES["secret"]),
        *(source["secretRef"]["name"] for source in yaml.safe_load(VALUES["extraEnvFrom"])),
    }
    assert [name for name in named if f"create secret generic {name} " not in GUIDE] == []


def test_kubernetes_accepts_the_query_service() -> None:
    for resource in QUERY_SERVICE:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def merge(values: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    """Merge values as Helm does."""
    both = {
        name: merge(values[name], value)
        for name, value in stronger.items()
        if isinstance(value, dict) and isinstance(values.get(name), dict)
    }
    return values | stronger | both


def render(release: str, values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the resources of a release by kind and name. The chart checks the values by its schema first."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    folder = os.environ.get("HELM_CHART")
    if not folder:
        pytest.skip("HELM_CHART does not name the folder of Airflow's chart, which no package registry has")
    with helm.Chart.load(Path(folder)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace="catalog")
    manifests = (text for name, text in files.items() if not name.endswith("NOTES.txt"))
    resources = [found for text in manifests for found in yaml.safe_load_all(text) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in resources}


@pytest.fixture(scope="module")
def airflow() -> dict[tuple[str, str], dict[str, Any]]:
    return render("catalog", VALUES)


@pytest.fixture(scope="module")
def workers() -> dict[tuple[str, str], dict[str, Any]]:
    return render("catalog-workers", merge(VALUES, WORKERS))


def list_pods(resources: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds = {"Deployment", "StatefulSet", "Job"}
    return {name: found["spec"]["template"]["spec"] for (kind, name), found in resources.items() if kind in kinds}


def test_kubernetes_accepts_both_releases(airflow: dict[Any, Any], workers: dict[Any, Any]) -> None:
    for resource in (*airflow.values(), *workers.values()):
        # Kubernetes itself does not know the resources of KEDA.
        if not resource["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    assert not airflow.keys() & workers.keys()


def test_jobs_run_only_in_the_image_with_models(airflow: dict[Any, Any], workers: dict[Any, Any]) -> None:
    assert list_pods(workers).keys() == {"catalog-workers-worker-cpu", "catalog-workers-worker-gpu"}
    assert not [name for name in list_pods(airflow) if "worker" in name]
    for pods, image in (
        (list_pods(airflow), "catalog-tagger-airflow:"),
        (list_pods(workers), "catalog-tagger-worker:"),
    ):
        images = [container["image"] for pod in pods.values() for container in pod["containers"]]
        own = [name for name in images if not name.startswith(("redis:", "quay.io/"))]
        assert own
        assert all(image in name for name in own)


def test_no_container_calls_a_script_of_another_image(airflow: dict[Any, Any], workers: dict[Any, Any]) -> None:
    pods = {**list_pods(airflow), **list_pods(workers)}
    assert [name for name, pod in pods.items() if "/entrypoint" in str(pod) or "/clean-logs" in str(pod)] == []


def test_a_stopped_worker_has_time_for_a_shard(workers: dict[Any, Any]) -> None:
    assert {pod["terminationGracePeriodSeconds"] for pod in list_pods(workers).values()} == {1200}


def test_workers_take_their_queue_and_scale_by_it(workers: dict[Any, Any]) -> None:
    gpu = list_pods(workers)["catalog-workers-worker-gpu"]
    [container] = gpu["containers"]
    assert container["args"][-1].endswith("celery worker -q gpu")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    scaled = workers["ScaledObject", "catalog-workers-worker-gpu"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 4)
    assert scaled["triggers"][0]["metadata"]["query"] == SETS["gpu"]["keda"]["query"]
