"""Check who may use the query service: programs on this machine, or clients with the token if there is one."""

import ipaddress
import secrets

from starlette.requests import Request

from jobs.errors import PermanentError
from jobs.query_service.refusals import UnknownClientError
from jobs.settings import Settings

LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def is_on_loopback(settings: Settings) -> bool:
    """Tell whether the service is only reachable from this machine."""
    try:
        return ipaddress.ip_address(settings.serve_host).is_loopback
    except ValueError:
        return settings.serve_host == "localhost"


def require_token_beyond_loopback(settings: Settings) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        PermanentError: there is none.
    """
    if settings.query_token is None and not is_on_loopback(settings):
        raise PermanentError(
            f"CATALOG_SERVE_HOST={settings.serve_host} is reachable from other machines: set CATALOG_QUERY_TOKEN for "
            "the service and its clients, or serve on 127.0.0.1"
        )


def require_token(request: Request, token: str | None) -> None:
    """Check the token of a request, if the service has one.

    Raises:
        UnknownClientError: the token is missing or wrong.
    """
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise UnknownClientError("unknown_client", "send `Authorization: Bearer` with the value of CATALOG_QUERY_TOKEN")
