"""The steps of the check, in the order of the runbook. A step that fails raises an error that says what was wrong."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3

from benchmarks.scenarios.compose.deployment import Deployment
from benchmarks.scenarios.compose.docker import FailedCommandError
from benchmarks.scenarios.compose.runbook import read_commands, translate
from demo.airflow_client import AirflowClient, DagRun
from demo.inputs import describe_sample, write_random_weights
from demo.sample_catalog import SampleCatalog, SampleCatalogSpec, render_sample_catalog

SPEC = SampleCatalogSpec(labeled_products=160)
DAGS = ("catalog_ingest", "model_retrain", "catalog_retag")
WORKERS = 2
COMMAND_SECONDS, RUN_SECONDS = 1800, 1800
QUICK_TRAINING = "--from-scratch --budget-minutes 0.5"
PAGES = (
    "overview",
    "models",
    "images",
    "review",
    "map",
    "failures",
    "search?q=red+striped+dress",
)
COUNTS = (
    "SELECT (SELECT count(*) FROM catalog.current_image_tags), (SELECT count(*) FROM catalog.promotions), "
    "(SELECT count(*) FROM catalog.tagging_runs)"
)


def render_inputs(folder: Path) -> SampleCatalog:
    """Render images and labels, and write base checkpoints, into the folder of the deployment."""
    catalog = render_sample_catalog(folder / "sample", SPEC)
    write_random_weights(describe_sample(catalog), folder / "bases")
    catalog.labeled_folder.rename(folder / "labeled")
    # transformers writes weights that only their owner can read.
    for path in (folder / "bases").rglob("*"):
        path.chmod(0o755)
    return catalog


def start(deployment: Deployment) -> dict[str, float]:
    """Start everything, then a second worker. Return the seconds that each service took."""
    up, ps, *_ = read_commands("First start of a deployment")
    # Watched while it starts, because Docker keeps only the latest health checks.
    with ThreadPoolExecutor(1) as threads:
        seconds = deployment.wait_until_ready(threads.submit(deployment.run, up, COMMAND_SECONDS))
    print(deployment.run(ps, 60))
    deployment.run(f"docker compose up --detach --scale airflow-worker={WORKERS}", COMMAND_SECONDS)
    deployment.wait_until_ready()
    return seconds


def upload(deployment: Deployment, catalog: SampleCatalog) -> None:
    """Upload the images to the published port."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{deployment.variables['CATALOG_S3_PORT']}",
        aws_access_key_id=deployment.variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=deployment.variables["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    for path in filter(Path.is_file, catalog.unlabeled_folder.rglob("*")):
        client.upload_file(str(path), "images", path.relative_to(catalog.unlabeled_folder).as_posix())


def create_champions(deployment: Deployment) -> None:
    """Import the labels and train on the command line, and print the plan of the first run."""
    _, _, labels, bases, *_, plan = read_commands("First start of a deployment")
    deployment.run(bases, COMMAND_SECONDS)
    deployment.run(labels.replace("catalog retrain", f"catalog retrain {QUICK_TRAINING}"), COMMAND_SECONDS)
    print(deployment.run(plan, COMMAND_SECONDS).strip().splitlines()[-1])


def enable(deployment: Deployment) -> None:
    """Enable the DAGs."""
    for dag in DAGS:
        deployment.run(translate(f"airflow dags unpause {dag}"), 120)


def ingest(deployment: Deployment, airflow: AirflowClient) -> None:
    """Tag the images, and check that both workers took part."""
    run = _run_dag(airflow, "catalog_ingest", {})
    query = (
        f"SELECT count(DISTINCT hostname) FROM task_instance WHERE task_id = 'tag_shard' AND run_id = '{run.run_id}'"
    )
    _require(int(deployment.query("airflow", query)) == WORKERS, f"{run.run_id} did not use {WORKERS} workers")


def retrain(deployment: Deployment, airflow: AirflowClient) -> None:
    """Train and promote in Airflow, and wait for the retag that the promotion starts."""
    _run_dag(airflow, "model_retrain", {"from_scratch": True, "budget_minutes": 0.5, "seed": 2})
    behind = (
        "SELECT count(*) FROM catalog.champion_models c JOIN catalog.live_models l USING (kind) "
        "WHERE c.model_version_id <> l.model_version_id"
    )
    deadline = time.monotonic() + RUN_SECONDS
    while deployment.query("catalog", behind) != "0" or airflow.list_runs("catalog_retag", ["queued", "running"]):
        for failed in airflow.list_runs("catalog_retag", ["failed"]):
            _follow(airflow, failed)
        _require(time.monotonic() < deadline, "no retag switched to the new models")
        time.sleep(2)


def open_pages(airflow: AirflowClient) -> None:
    """Open the pages with a login. A page that fails raises an error."""
    for page in PAGES:
        airflow.read_page(f"/catalog/{page}")
    _require("sku" in airflow.read_page("/catalog/search?q=red+striped+dress"), "the text search found nothing")


def back_up(deployment: Deployment) -> None:
    """Dump both databases."""
    deployment.run(read_commands("Back up and restore")[0], COMMAND_SECONDS)


def restore(deployment: Deployment) -> None:
    """Lose the catalog, restore both databases, and compare."""
    expected = deployment.query("catalog", COUNTS)
    deployment.query("catalog", "DROP SCHEMA catalog CASCADE")
    *before, last = read_commands("Back up and restore")[1].splitlines()
    catalog = "\n".join(before)
    airflow = "\n".join(before[2:]).replace("catalog", "airflow").replace("tagger", "airflow")
    deployment.run(f"{catalog}\n{airflow}\n{last}", COMMAND_SECONDS)
    deployment.wait_until_ready()
    _require(deployment.query("catalog", COUNTS) == expected, "the restored catalog differs")


def upgrade(deployment: Deployment) -> None:
    """Replace the version, and check that new containers run the new code."""
    back_up(deployment)
    stop, up = [command for command in read_commands("Upgrade") if command.startswith("docker compose")][:2]
    deployment.run(stop, COMMAND_SECONDS)
    with (deployment.folder / "jobs" / "__init__.py").open("a") as file:
        file.write("UPGRADED = True\n")
    deployment.run(up, COMMAND_SECONDS)
    deployment.wait_until_ready()
    for service in ("query", "airflow-api-server"):
        deployment.run(f"docker compose exec -T {service} python -c 'from jobs import UPGRADED'", 120)


def stop(deployment: Deployment) -> None:
    """Stop everything."""
    deployment.run("docker compose --profile gpu down", COMMAND_SECONDS)
    _require(not deployment.list_services(), "containers are left")


def _run_dag(airflow: AirflowClient, dag: str, parameters: dict[str, object]) -> DagRun:
    return _follow(airflow, airflow.trigger_dag(dag, parameters))


def _follow(airflow: AirflowClient, run: DagRun) -> DagRun:
    """Wait for the end of a run, and raise an error with the log of a failed task."""
    ended = airflow.wait_for_run(run, RUN_SECONDS)
    if ended.state != "success":
        for task in airflow.read_task_instances(run.dag_id, run.run_id):
            if task.state == "failed":
                raise FailedCommandError(
                    f"{run.dag_id}.{task.name}:\n{airflow.read_log(run.dag_id, run.run_id, task)[-3000:]}"
                )
    return ended


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise FailedCommandError(problem)
