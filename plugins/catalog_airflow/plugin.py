"""What Airflow loads of this package."""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from catalog_airflow.defaults import PAGES_PREFIX
from catalog_airflow.evaluation_pages import create_pages_app
from catalog_airflow.gate_operator import EvaluationPageLink


class CatalogPlugin(AirflowPlugin):  # type: ignore[misc]
    """The pages of candidates, and the link to them."""

    name = "catalog"
    operator_extra_links: ClassVar[list[Any]] = [EvaluationPageLink()]
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [
        {"app": create_pages_app(), "url_prefix": PAGES_PREFIX, "name": "Catalog tagger"}
    ]
