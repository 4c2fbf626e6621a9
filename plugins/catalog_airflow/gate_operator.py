"""The task that decides gates: a job with a link to the page that explains its decision."""

from collections.abc import Collection
from typing import ClassVar
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey

from catalog_airflow.defaults import PAGES_PREFIX
from catalog_airflow.job_operator import JobOperator


class EvaluationPageLink(BaseOperatorLink):  # type: ignore[misc]
    """Leads to the page of the candidate that a gate decided on, whether it passed or failed."""

    name = "Evaluation"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The path of the page at the API server."""
        assert isinstance(operator, GateOperator)
        options = operator.options or {}
        return f"{PAGES_PREFIX}/evaluations/{operator.argument}?run={quote(str(options['run']), safe='')}"


class GateOperator(JobOperator):
    """Runs ``gate KIND``; a gate that failed fails the task at once, with the reasons in its log."""

    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (EvaluationPageLink(),)
    ui_color = "#fee2e2"
