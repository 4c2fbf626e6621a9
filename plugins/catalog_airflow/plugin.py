"""What Airflow loads of this package."""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalog_airflow.defaults import PAGES_PREFIX
from catalog_airflow.lazy_app import App, LazyApp
from catalog_airflow.page_links import CatalogPageLink, EvaluationPageLink


def make_pages_app() -> App:
    """The pages, with all that they import."""
    # Here, since Airflow reads plugins before its API can be imported, and in processes that never show a page.
    from catalog_airflow.pages.app import create_pages_app

    return create_pages_app()


class CatalogPlugin(AirflowPlugin):  # type: ignore[misc]
    """The pages of the catalog, where they are in the UI, and the links that lead to them."""

    name = "catalog"
    operator_extra_links: ClassVar[list[Any]] = [CatalogPageLink(), EvaluationPageLink()]
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": LazyApp(make_pages_app), "url_prefix": PAGES_PREFIX, "name": "Catalog tagger"}
    ]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "Catalog",
            "href": f"{PAGES_PREFIX}/overview",
            "destination": "nav",
            "url_route": "catalog",
            "icon": f"{PAGES_PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PAGES_PREFIX}/static/icon_dark.svg",
        },
        {
            "name": "Catalog",
            "href": f"{PAGES_PREFIX}/overview",
            "destination": "dag",
            "url_route": "catalog_overview",
        },
        {
            "name": "Catalog report",
            "href": f"{PAGES_PREFIX}/run?run={{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "catalog_run",
        },
    ]
