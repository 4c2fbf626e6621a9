"""Start the query service of the local stack. It can start before any model is live."""

import sys
from collections.abc import Mapping

from jobs.local.ports import LOOPBACK, fetch_page
from jobs.local.services import Command, Service
from jobs.settings import PROJECT_ROOT

QUERY_SERVICE = "query-service"
QUERY_PORT_SETTING = "CATALOG_SERVE_PORT"
QUERY_URL_SETTING = "CATALOG_QUERY_SERVICE_URL"


def format_query_url(port: int) -> str:
    """Return the service's URL, which only this machine can reach."""
    return f"http://{LOOPBACK}:{port}"


def make_query_service(environment: Mapping[str, str], port: int) -> Service:
    """Describe the server. It counts as ready once it responds, even if no model is live yet."""
    return Service(
        QUERY_SERVICE,
        Command(
            (sys.executable, "-m", "jobs", "serve"),
            {**environment, "CATALOG_SERVE_HOST": LOOPBACK, QUERY_PORT_SETTING: str(port)},
            PROJECT_ROOT,
        ),
        lambda _process: _is_up(port),
        port,
        QUERY_PORT_SETTING,
    )


def _is_up(port: int) -> bool:
    page = fetch_page(port, "/health")
    return page is not None and page[0] in {200, 503}
