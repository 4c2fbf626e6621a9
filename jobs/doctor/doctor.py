"""List the checks of an installation, and run them."""

from collections.abc import Callable
from functools import partial

from jobs.connections import Connections, open_connections
from jobs.doctor.airflow_checks import AIRFLOW_DEADLINE_SECONDS, AirflowExamination, find_airflow
from jobs.doctor.checks import Check, CheckResult, Finding, run_checks
from jobs.doctor.database_checks import check_database, check_pgvector, check_rights, check_schema
from jobs.doctor.machine_checks import check_clock, check_disk, check_query_service
from jobs.doctor.model_checks import check_model
from jobs.doctor.storage_checks import check_artifacts, check_source
from jobs.settings import Settings, find_ignored_variables, load_settings

MODEL_DEADLINE_SECONDS = 60.0
"""Long enough to fetch a build and to import its engine."""
NAMES = (
    *("database", "pgvector", "rights", "schema", "source", "artifacts", "classifier", "encoder"),
    *("airflow", "dags", "pool", "query service", "disk", "clock"),
)


def examine_installation(load: Callable[[], Settings] = load_settings) -> list[CheckResult]:
    """Run all checks and return their results."""
    loaded: list[Settings] = []

    def check_settings() -> Finding:
        loaded.append(load())
        if ignored := find_ignored_variables():
            return Finding(f"{', '.join(ignored)} in .env has no effect: export it instead", "warning")
        return Finding("all settings are valid")

    first = run_checks([Check("settings", check_settings)])
    if not loaded:
        return [*first, *(CheckResult(name, "skipped", "needs settings") for name in NAMES)]
    connections = open_connections(loaded[0])
    try:
        return first + run_checks(list_checks(connections))
    finally:
        connections.engine.dispose()


def list_checks(connections: Connections) -> list[Check]:
    """Return the checks that need valid settings."""
    settings = connections.settings
    airflow = AirflowExamination(
        find_airflow(settings.compute.tagging_slots), () if settings.delivery.webhooks else ("catalog_deliver",)
    )
    has_catalog = ("schema", "artifacts")
    checks = [
        Check("database", partial(check_database, connections)),
        Check("pgvector", partial(check_pgvector, connections), ("database",)),
        Check("rights", partial(check_rights, connections), ("database",)),
        Check("schema", partial(check_schema, connections), ("pgvector",)),
        Check("source", partial(check_source, connections)),
        Check("artifacts", partial(check_artifacts, connections)),
        Check("classifier", partial(check_model, connections, "classifier"), has_catalog, MODEL_DEADLINE_SECONDS),
        Check("encoder", partial(check_model, connections, "encoder"), has_catalog, MODEL_DEADLINE_SECONDS),
        Check("airflow", airflow.check_airflow, deadline_seconds=AIRFLOW_DEADLINE_SECONDS),
        Check("dags", airflow.check_dags, ("airflow",)),
        Check("pool", airflow.check_pool, ("airflow",)),
        Check("query service", partial(check_query_service, settings.serving)),
        Check("disk", partial(check_disk, settings.locations.model_cache)),
        Check("clock", partial(check_clock, connections), ("database", "source")),
    ]
    assert tuple(check.name for check in checks) == NAMES
    return checks
