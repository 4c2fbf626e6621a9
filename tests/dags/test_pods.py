"""The pods that the Kubernetes executor starts, built by the code of its provider from the parsed DAGs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from jobs.settings import PROJECT_ROOT
from tests.dags.conftest import parse_dags

pytestmark = pytest.mark.skipif(find_spec("kubernetes") is None, reason="requirements-compose.txt is not installed")

CLASSES = {
    "tag-shard": "tag",
    "complete-retag": "tag",
    "train": "train",
    "optimize": "evaluate",
    "evaluate": "evaluate",
}
"""The class of each command that is not of the class ``plan``."""

POD = """
[{name}]
queue = "{name}-queue"
executor = "KubernetesExecutor"

[{name}.pod]
image = "registry.example.com/{name}:1"
nodeSelector = {{ pool = "{name}" }}
tolerations = [{{ key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" }}]

[{name}.pod.resources]
requests = {{ cpu = "500m", memory = "2Gi" }}
limits = {{ memory = "2Gi", "nvidia.com/gpu" = {gpus} }}
"""
GPUS = {"plan": 0, "tag": 1, "train": 8, "evaluate": 2}


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory, process_coverage: dict[str, str]) -> dict[str, Any]:
    """Return the DAGs, parsed with a pod for every class."""
    home = tmp_path_factory.mktemp("airflow")
    placement = home / "placement.toml"
    placement.write_text("".join(POD.format(name=name, gpus=gpus) for name, gpus in GPUS.items()))
    environment = {
        "CATALOG_PLACEMENT": str(placement),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor,KubernetesExecutor",
    }
    return parse_dags(PROJECT_ROOT / "dags", home, process_coverage | environment)


def find_tasks(parsed: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (dag_id, task_id): task
        for dag_id, described in parsed["dags"].items()
        for task_id, task in described["tasks"].items()
    }


def test_every_task_gets_the_queue_executor_and_pod_of_its_class(placed: dict[str, Any]) -> None:
    assert placed["errors"] == {}
    tasks = find_tasks(placed)
    assert len(tasks) >= 20
    for name, task in tasks.items():
        task_class = CLASSES.get(task["command"], "plan")
        assert (task["queue"], task["executor"]) == (f"{task_class}-queue", "KubernetesExecutor"), name
        [container] = task["pod"]["spec"]["containers"]
        assert container["image"] == f"registry.example.com/{task_class}:1", name
        assert container["resources"] == {
            "requests": {"cpu": "500m", "memory": "2Gi"},
            "limits": {"memory": "2Gi", "nvidia.com/gpu": str(GPUS[task_class])},
        }, name
        assert task["pod"]["spec"]["nodeSelector"] == {"pool": task_class}, name
        assert task["pod"]["spec"]["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ], name


def test_kubernetes_accepts_every_pod(placed: dict[str, Any]) -> None:
    for task in find_tasks(placed).values():
        kubernetes_validate.validate(task["pod"], kubernetes_validate.latest_version(), strict=True)


def test_the_pod_template_stays_where_nothing_replaces_it(placed: dict[str, Any]) -> None:
    for task in find_tasks(placed).values():
        [container] = task["pod"]["spec"]["containers"]
        assert {"name": "CATALOG_DATABASE_URL", "value": "postgresql://catalog"} in container["env"]
        assert task["pod"]["spec"]["restartPolicy"] == "Never"


def test_tasks_with_models_stay_in_their_pool(placed: dict[str, Any], parsed: dict[str, Any]) -> None:
    pools = {name: task["pool"] for name, task in find_tasks(placed).items()}
    assert pools == {name: task["pool"] for name, task in find_tasks(parsed).items()}


def test_nothing_is_placed_by_default(parsed: dict[str, Any]) -> None:
    assert {(task["queue"], task["executor"], task["pod"]) for task in find_tasks(parsed).values()} == {
        ("default", None, None)
    }


def test_an_invalid_file_is_one_error_of_every_dag(tmp_path: Path, process_coverage: dict[str, str]) -> None:
    placement = tmp_path / "placement.toml"
    placement.write_text("[tag]\nqueue = 'gpu'\n[tags]\nqueue = 'gpu'\n")
    parsed = parse_dags(PROJECT_ROOT / "dags", tmp_path, process_coverage | {"CATALOG_PLACEMENT": str(placement)})
    assert len(parsed["errors"]) == len(list((PROJECT_ROOT / "dags").glob("*.py")))
    for error in parsed["errors"].values():
        assert error.splitlines()[-1].endswith(f"CATALOG_PLACEMENT={placement}: tags: Extra inputs are not permitted")
