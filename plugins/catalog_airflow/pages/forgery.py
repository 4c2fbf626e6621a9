"""Forms that another site's page cannot send in a visitor's name: each carries a token that was made for them."""

from typing import Annotated

from airflow.configuration import conf
from fastapi import Form, HTTPException
from itsdangerous import BadSignature, URLSafeTimedSerializer

from catalog_airflow.pages.access import AnyViewer

VALID_SECONDS = 12 * 3600


def make_token(viewer_name: str) -> str:
    """A token that only this viewer's forms may carry, signed with the secret that all API servers share."""
    token: str = _open_serializer().dumps(viewer_name)
    return token


def require_token(viewer: AnyViewer, token: Annotated[str, Form()] = "") -> None:
    """Refuse a post without a token of the viewer's own."""
    try:
        is_own = _open_serializer().loads(token, max_age=VALID_SECONDS) == viewer.name
    except BadSignature:
        is_own = False
    if not is_own:
        raise HTTPException(403, "This form is out of date, or not ours. Go back, load the page again and repeat.")


def _open_serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get("api", "secret_key"), salt="catalog-pages")
