"""Print the state of this machine's Airflow as JSON, from its database: ``catalog doctor`` runs it as a program.

It needs no login, unlike the API, only the configuration of Airflow. With Docker Compose, that is the environment of
every container of Airflow.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Print the state in one line."""
    # Importing Airflow writes to standard output, so the result gets a descriptor of its own.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    print(json.dumps(read_state()), file=output, flush=True)


def read_state() -> dict[str, Any]:
    """Return the components' health, the DAGs with whether they are paused, their import errors, and the pools."""
    from airflow.api.common.airflow_health import get_airflow_health
    from airflow.configuration import conf
    from airflow.models.dag import DagModel
    from airflow.models.errors import ParseImportError
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session
    from airflow.version import version
    from sqlalchemy import select

    with create_session() as session:
        dags = session.execute(select(DagModel.dag_id, DagModel.is_paused).where(DagModel.is_stale.is_(False))).all()
        errors = session.execute(select(ParseImportError.filename, ParseImportError.stacktrace)).all()
        pools = session.execute(select(Pool.pool, Pool.slots)).all()
    return {
        "version": version,
        "api_url": conf.get("core", "execution_api_server_url", fallback="").removesuffix("/execution/"),
        "health": {name: component["status"] for name, component in get_airflow_health().items()},
        "paused": {dag_id: bool(is_paused) for dag_id, is_paused in dags},
        "import_errors": {name: str(trace).strip().splitlines()[-1] for name, trace in errors},
        "pools": dict(tuple(row) for row in pools),
    }


if __name__ == "__main__":
    main()
