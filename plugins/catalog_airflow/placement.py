"""Read where tasks run: the queue, the executor and the pod of each task class.

`CATALOG_PLACEMENT` names a TOML file with a table for each class. Without it, all tasks run in Airflow's default queue,
by its default executor. docs/kubernetes.md shows an example.
"""

import os
import tomllib
from typing import Annotated, Any, Literal

from airflow.sdk.configuration import conf
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from catalog_airflow.defaults import PROJECT_ROOT, TAGGING_POOL

VARIABLE = "CATALOG_PLACEMENT"

TaskClass = Literal["plan", "tag", "train", "evaluate"]
"""``plan`` tasks use the database and the bucket; tasks of the other classes also run or train models."""


class _Table(BaseModel):
    # Keys are those of a pod's specification, and a number such as 1 is a valid quantity there.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, coerce_numbers_to_str=True)


Name = Annotated[str, Field(min_length=1)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|[MGTPE]|[KMGTPE]i)?$")]


class Toleration(_Table):
    """A taint that the pod tolerates."""

    key: Name | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Resources(_Table):
    """What the pod requests and may use at most, by resource: cpu, memory, nvidia.com/gpu."""

    requests: dict[Name, Quantity] = {}
    limits: dict[Name, Quantity] = {}


class Pod(_Table):
    """What differs from the pod template. Of a list or a table, the whole value replaces that of the template."""

    image: Name | None = None
    resources: Resources | None = None
    node_selector: dict[Name, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class Placement(_Table):
    """Where the tasks of one class run. Only the Kubernetes executor reads ``pod``."""

    queue: Name | None = None
    executor: Name | None = None
    pod: Pod | None = None


class Placements(_Table):
    """The whole file."""

    plan: Placement = Placement()
    tag: Placement = Placement()
    train: Placement = Placement()
    evaluate: Placement = Placement()


def place(task_class: TaskClass) -> dict[str, Any]:
    """Return the arguments of an operator that place its task.

    All are set, so `place("plan")` can be a default for tasks of other classes. Tasks with models need a slot of the
    pool, whatever queue they are in.

    Raises:
        ValueError: the file is missing or invalid. The message names every invalid value.
    """
    placement: Placement = getattr(read_placements(), task_class)
    pool = {} if task_class == "plan" else {"pool": TAGGING_POOL}
    return pool | {
        "queue": placement.queue or conf.get("operators", "default_queue"),
        "executor": placement.executor,
        "executor_config": {"pod_override": _make_pod(placement.pod)} if placement.pod else {},
    }


def read_placements() -> Placements:
    """Read and check the file. Errors as in `place`."""
    value = os.environ.get(VARIABLE)
    if not value:
        return Placements()
    path = PROJECT_ROOT / value
    try:
        return Placements.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
    except (OSError, ValueError) as error:
        problems = str(error)
    raise ValueError(f"{VARIABLE}={path}: {problems}")


def _make_pod(pod: Pod) -> Any:
    try:
        # Takes half a second, so only deployments with pods import it.
        from kubernetes.client import models as k8s
    except ImportError:
        raise ValueError(f"{VARIABLE} has pods: install apache-airflow-providers-cncf-kubernetes") from None
    resources = k8s.V1ResourceRequirements(**pod.resources.model_dump()) if pod.resources else None
    return k8s.V1Pod(
        spec=k8s.V1PodSpec(
            containers=[k8s.V1Container(name="base", image=pod.image, resources=resources)],
            node_selector=pod.node_selector or None,
            tolerations=[k8s.V1Toleration(**toleration.model_dump()) for toleration in pod.tolerations] or None,
        )
    )
