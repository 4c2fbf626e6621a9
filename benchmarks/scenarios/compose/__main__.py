"""Start the whole Compose file, follow the runbook from the first start to an upgrade, and measure each service.

    make compose-check

Builds both images first. Without an answering Docker engine, it prints why and does nothing. Without a registry, it
builds stand-ins for the images of Postgres, Redis, the S3 server and Python. Commit your changes first, because the
deployment is a clone.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.results import Row, format_table, publish
from benchmarks.scenarios.compose import checks
from benchmarks.scenarios.compose.deployment import Deployment, open_deployment
from benchmarks.scenarios.compose.docker import FailedCommandError, find_missing_program
from benchmarks.scenarios.compose.images import prepare_images
from demo.airflow_client import AirflowClient
from jobs.errors import JobError

GATES = Path(__file__).with_name("any_model.toml")
SAMPLE_SECONDS = 10


class StepTimer:
    """Print each step and keep its seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Time one step."""
        print(f"-- {title} ...", flush=True)
        started = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - started
        print(f"   done in {self.seconds[title]:.0f} s", flush=True)


class MemorySampler:
    """Keep the largest memory of each service while the deployment works."""

    def __init__(self, deployment: Deployment) -> None:
        self.peaks: dict[str, float] = {}
        self._deployment = deployment

    @contextmanager
    def run(self) -> Iterator[None]:
        """Measure in a thread."""
        ended = threading.Event()
        thread = threading.Thread(target=self._sample, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for name, size in self._deployment.read_memory().items():
                self.peaks[name] = max(size, self.peaks.get(name, 0))


def main() -> None:
    """Run the check and publish the figures."""
    if reason := find_missing_program():
        print(f"compose-check skipped: {reason}")
        return
    # Containers are removed also after a SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check_deployment()
    except (FailedCommandError, JobError) as error:
        sys.exit(f"compose-check failed: {error}")


def check_deployment() -> None:
    """Run all steps, and publish the figures."""
    step = StepTimer()
    with step("images"):
        compose_files = prepare_images()
    settings = {
        "CATALOG_TAGGING_SLOTS": str(checks.WORKERS),
        "CATALOG_GATE_POLICY": str(GATES),
        "CATALOG_CLASSIFIER_BASE": "/var/cache/catalog/bases/blank-classifier",
        "CATALOG_ENCODER_BASE": "/var/cache/catalog/bases/blank-encoder",
        "CODE_VERSION": "compose-check",
        # Another training would delay the one that is checked.
        "CATALOG_DRIFT_LIMIT": "1000",
    }
    with open_deployment(compose_files, settings) as deployment:
        rows = follow_runbook(deployment, step)
    publish(
        "Docker Compose",
        f"`docker-compose.yaml` with {checks.WORKERS} workers on the rendered catalog, from the first start to an "
        "upgrade: the size of each image, the time from the start of a container until it is healthy (checked every 10 "
        "or 60 s), and its memory when idle and at most."
        + (" Postgres, Redis and the S3 server are stand-ins, because no registry was reached." * bool(compose_files)),
        rows,
        packages=["apache-airflow", "torch"],
        details=[{"step": title, "s": round(seconds)} for title, seconds in step.seconds.items()],
    )


def follow_runbook(deployment: Deployment, step: StepTimer) -> list[Row]:
    """Run all steps. Return the figures of each service."""
    with step("render"):
        catalog = checks.render_inputs(deployment.folder)
    with step("first start"):
        starts = checks.start(deployment)
    idle, sampler, variables = deployment.read_memory(), MemorySampler(deployment), deployment.variables
    url = f"http://127.0.0.1:{variables['CATALOG_AIRFLOW_PORT']}"
    with AirflowClient(url, "admin", variables["AIRFLOW_ADMIN_PASSWORD"]) as airflow:
        with sampler.run():
            with step("upload"):
                checks.upload(deployment, catalog)
            with step("labels, champions, plan"):
                checks.create_champions(deployment)
            with step("enable the DAGs"):
                checks.enable(deployment)
            with step("catalog_ingest"):
                checks.ingest(deployment, airflow)
            with step("model_retrain, catalog_retag"):
                checks.retrain(deployment, airflow)
            with step("pages"):
                checks.open_pages(airflow)
        sizes = deployment.read_image_sizes()
    figures = {"image, MB": sizes, "start, s": starts, "memory idle, MB": idle, "memory at most, MB": sampler.peaks}
    rows: list[Row] = [
        {"": name} | {service: round(size) for service, size in values.items()} for name, values in figures.items()
    ]
    print("\n".join(format_table(rows)))
    for title, check in STEPS.items():
        with step(title):
            check(deployment)
    return rows


STEPS: dict[str, Callable[[Deployment], None]] = {
    "back up": checks.back_up,
    "restore": checks.restore,
    "upgrade": checks.upgrade,
    "stop": checks.stop,
}


if __name__ == "__main__":
    main()
