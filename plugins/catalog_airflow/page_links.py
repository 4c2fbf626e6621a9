"""Link tasks in Airflow's UI to the catalog pages that show their results."""

from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey

from catalog_airflow.defaults import PAGES_PREFIX


def locate_airflow() -> str:
    """Return the path under which a proxy may serve Airflow, without a slash at its end. Usually it is empty."""
    base: str = conf.get("api", "base_url", fallback="") or ""
    return f"/{base.partition('://')[2].partition('/')[2].strip('/')}".rstrip("/")


def locate_pages() -> str:
    """Return the path of the pages in the browser."""
    return f"{locate_airflow()}{PAGES_PREFIX}"


TAGGING_COMMANDS = frozenset({"discover", "tag-shard", "publish", "map", "report", "plan-retag", "complete-retag"})
MODEL_COMMANDS = frozenset({"snapshot", "train", "optimize", "evaluate", "gate", "promote", "decide"})


class CatalogPageLink(BaseOperatorLink):  # type: ignore[misc]
    """Link to the report of the run, to the models, or to the overview."""

    name = "Catalog"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the page on the API server."""
        command = getattr(operator, "command", None)
        if command in TAGGING_COMMANDS:
            return f"{locate_pages()}/run?run={_quote_run(operator)}"
        return f"{locate_pages()}/{'models' if command in MODEL_COMMANDS else 'overview'}"


class EvaluationPageLink(BaseOperatorLink):  # type: ignore[misc]
    """Link to the evaluation page of the candidate, whether it passed or failed."""

    name = "Evaluation"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the page on the API server."""
        return f"{locate_pages()}/evaluations/{getattr(operator, 'argument', '')}?run={_quote_run(operator)}"


def _quote_run(operator: BaseOperator) -> str:
    options = getattr(operator, "options", None) or {}
    return quote(str(options["run"]), safe="")
