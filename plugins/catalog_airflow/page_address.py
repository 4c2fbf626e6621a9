"""Where the browser finds our pages."""

from airflow.configuration import conf

from catalog_airflow.defaults import PAGES_PREFIX


def locate_pages() -> str:
    """Their path as the browser knows it: a proxy may serve Airflow below a path of its own."""
    base: str = conf.get("api", "base_url", fallback="") or ""
    path = "/" + base.partition("://")[2].partition("/")[2].strip("/")
    return f"{path.rstrip('/')}{PAGES_PREFIX}"
