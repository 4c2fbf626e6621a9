"""The task that decides gates: a job with a link to the page that explains its decision."""

from collections.abc import Collection
from typing import ClassVar

from airflow.sdk import BaseOperatorLink

from catalog_airflow.job_operator import JobOperator
from catalog_airflow.page_links import EvaluationPageLink


class GateOperator(JobOperator):
    """Runs ``gate KIND``; a gate that failed fails the task at once, with the reasons in its log."""

    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (EvaluationPageLink(),)
    ui_color = "#fee2e2"
