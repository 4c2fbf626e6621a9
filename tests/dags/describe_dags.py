"""Parse a folder of DAGs as Airflow does, and print a description. The tests run this in its own process."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.hooks.subprocess import SubprocessHook  # noqa: F401
from airflow.providers.standard.operators.hitl import ApprovalOperator  # noqa: F401
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, BaseOperator, Param, TaskGroup, TriggerRule  # noqa: F401
from airflow.serialization.serialized_objects import DagSerialization

HEAVY = ("torch", "transformers", "jobs", "kubernetes")


def main(folder: Path) -> None:
    """Print one JSON object. Imports of Airflow itself happen before the clock starts."""
    bag = DagBag(dag_folder=folder, collect_dags=False)
    before = set(sys.modules)
    cpu_seconds = {}
    for path in sorted(folder.glob("*.py")):
        started = time.process_time()
        bag.process_file(str(path))
        cpu_seconds[path.name] = time.process_time() - started
    heavy = sorted(name for name in HEAVY if name in sys.modules.keys() - before)
    dags = {dag_id: describe_dag(dag) for dag_id, dag in bag.dags.items()}
    json.dump(
        {"errors": bag.import_errors, "cpu_seconds": cpu_seconds, "heavy": heavy, "dags": dags}, sys.stdout, default=str
    )


def describe_dag(dag: Any) -> dict[str, Any]:
    """Describe a DAG for the tests."""
    # What the scheduler reads from the database and passes to an executor.
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    return {
        "schedule": str(dag.schedule),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "doc_md": dag.doc_md,
        "params": {name: dag.params.get_param(name).serialize() for name in dag.params},
        "tasks": {
            task.task_id: describe_task(task) | describe_placement(scheduled.get_task(task.task_id))
            for task in dag.tasks
        },
    }


def describe_task(task: Any) -> dict[str, Any]:
    """Describe a task for the tests, mapped or not."""
    options = getattr(task, "partial_kwargs", None) or vars(task)
    timeout = task.execution_timeout
    return {
        "command": options.get("command"),
        "argument": options.get("argument") if not task.is_mapped else None,
        "is_harmless": task.is_teardown and not task.on_failure_fail_dagrun,
        "outlets": [outlet.name for outlet in task.outlets],
        "is_mapped": task.is_mapped,
        "owner": task.owner,
        "retries": task.retries,
        "timeout_seconds": timeout.total_seconds() if timeout else None,
        "pool": task.pool,
        "trigger_rule": str(task.trigger_rule),
        "downstream": sorted(task.downstream_task_ids),
    }


def describe_placement(task: Any) -> dict[str, Any]:
    """Describe where a task runs, with the pod that the Kubernetes executor would start."""
    override = task.executor_config.get("pod_override")
    return {"queue": task.queue, "executor": task.executor, "pod": construct_pod(task, override) if override else None}


def construct_pod(task: Any, override: Any) -> Any:
    """Merge the pod of a task into a small template, as the Kubernetes executor does."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    container = {"name": "base", "env": [{"name": "CATALOG_DATABASE_URL", "value": "postgresql://catalog"}]}
    template = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container], "restartPolicy": "Never"}}
    pod = PodGenerator.construct_pod(
        dag_id=task.dag_id,
        task_id=task.task_id,
        pod_id="pod",
        try_number=1,
        kube_image="registry.example.com/airflow:1",
        date=None,
        args=["python", "-m", "airflow.sdk.execution_time.execute_workload"],
        pod_override_object=override,
        base_worker_pod=PodGenerator.deserialize_model_dict(template),
        namespace="catalog",
        scheduler_job_id="1",
        run_id="manual",
        map_index=3 if task.is_mapped else -1,
    )
    return PodGenerator.serialize_pod(pod)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
