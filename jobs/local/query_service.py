"""The query service of the local stack: it starts before any model is live, and waits for the first."""

import sys
from collections.abc import Mapping

import httpx

from jobs.local.ports import LOOPBACK
from jobs.local.services import Command, Service
from jobs.settings import PROJECT_ROOT

QUERY_SERVICE = "query-service"
QUERY_PORT_SETTING = "CATALOG_SERVE_PORT"
QUERY_URL_SETTING = "CATALOG_QUERY_SERVICE_URL"
_HEALTH_TIMEOUT_SECONDS = 5.0


def format_query_url(port: int) -> str:
    """Where clients find it, on this machine alone."""
    return f"http://{LOOPBACK}:{port}"


def make_query_service(environment: Mapping[str, str], port: int) -> Service:
    """The server; ready once it answers, be it that no model is live yet."""
    return Service(
        QUERY_SERVICE,
        Command(
            (sys.executable, "-m", "jobs", "serve"),
            {**environment, "CATALOG_SERVE_HOST": LOOPBACK, QUERY_PORT_SETTING: str(port)},
            PROJECT_ROOT,
        ),
        lambda _process: _answers(port),
        port,
        QUERY_PORT_SETTING,
    )


def _answers(port: int) -> bool:
    try:
        response = httpx.get(f"{format_query_url(port)}/health", timeout=_HEALTH_TIMEOUT_SECONDS, trust_env=False)
    except httpx.TransportError:
        return False
    return response.status_code in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
