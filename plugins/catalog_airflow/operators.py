"""Define the operators and assets of the DAGs: run a job, wait for approval, start another DAG."""

import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset, BaseOperator, BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from catalog_airflow.defaults import ERROR_KEY, PROJECT_ROOT
from catalog_airflow.page_links import CatalogPageLink, EvaluationPageLink

PROMOTION = Asset(name="catalog_promotion", uri="x-catalog://promotion")
"""A champion was promoted. Starts `catalog_retag`."""

DRIFT = Asset(name="catalog_drift", uri="x-catalog://drift")
"""The images of a run differ from those that the champion was evaluated on. Starts `model_retrain`.

Updated at most once a week per classifier.
"""


class AnnouncementOperator(BaseOperator):  # type: ignore[misc]
    """Update the ``outlets``, which starts the DAGs scheduled on them. A skipped task updates nothing."""

    template_fields: Sequence[str] = ("skip_when",)
    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (CatalogPageLink(),)
    ui_color = "#fef3c7"

    def __init__(self, *, skip_when: bool | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.skip_when = skip_when

    def execute(self, context: Context) -> None:
        """Succeed, so Airflow updates the outlets.

        Raises:
            AirflowSkipException: ``skip_when`` is true.
        """
        if self.skip_when:
            raise AirflowSkipException("nothing to announce")
        self.log.info("announcing %s", ", ".join(outlet.name for outlet in self.outlets))


PYTHON_VARIABLE = "CATALOG_PYTHON"
"""Names the interpreter of the jobs, if they have a virtual environment of their own."""

PERMANENT_EXIT_CODES = frozenset({2, 78})
"""Exit codes for wrong usage and for errors that a retry cannot fix. A test compares them with those of the jobs."""


class JobOperator(BaseOperator):  # type: ignore[misc]
    """Run a job, and return its report, the JSON in its last line of output, as the XCom of the task.

    With ``returned_field``, return only that field, because Airflow can map tasks only over return values. The whole
    report is then in the XCom ``report``.

    ``options`` become ``--name value``: None and False are left out, and True is a flag without a value.
    ``argument`` is the positional argument of the command. Tasks can be mapped over it.
    """

    template_fields: Sequence[str] = ("command", "argument", "options", "skip_when")
    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (CatalogPageLink(),)
    ui_color = "#dbeafe"

    def __init__(
        self,
        *,
        command: str,
        argument: str | int | None = None,
        options: Mapping[str, Any] | None = None,
        skip_when: bool | str = False,
        returned_field: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.argument = argument
        self.options = options
        self.skip_when = skip_when
        self.returned_field = returned_field

    @cached_property
    def subprocess_hook(self) -> SubprocessHook:
        """Return the hook of the running process, for `on_kill`."""
        return SubprocessHook()

    def execute(self, context: Context) -> Any:
        """Run the command.

        Raises:
            AirflowSkipException: ``skip_when`` is true.
            AirflowFailException: the job failed with an error that a retry cannot fix, or `CATALOG_PYTHON` is wrong.
            AirflowException: the job failed with any other error. Airflow retries it.
        """
        if self.skip_when:
            raise AirflowSkipException("disabled by a parameter of this run")
        command = self.build_command()
        if shutil.which(command[0]) is None:
            raise AirflowFailException(f"{PYTHON_VARIABLE}={command[0]} is not an executable file on this worker")
        result = self.subprocess_hook.run_command(command, cwd=str(PROJECT_ROOT))
        if result.exit_code:
            context["ti"].xcom_push(key=ERROR_KEY, value=result.output.removeprefix("error: "))
        if result.exit_code in PERMANENT_EXIT_CODES:
            raise AirflowFailException(f"{result.output} (exit code {result.exit_code}: a retry cannot help)")
        if result.exit_code:
            raise AirflowException(f"{result.output} (exit code {result.exit_code})")
        report: dict[str, Any] = json.loads(result.output)
        if self.returned_field is None:
            return report
        context["ti"].xcom_push(key="report", value=report)
        return report[self.returned_field]

    def build_command(self) -> list[str]:
        """Build the command line."""
        python = PROJECT_ROOT / (os.environ.get(PYTHON_VARIABLE) or sys.executable)
        line = [str(python), "-m", "jobs", self.command]
        if self.argument is not None:
            line.append(str(self.argument))
        for name, value in (self.options or {}).items():
            if value is True:
                line.append(f"--{name}")
            elif value is not None and value is not False:
                line += [f"--{name}", str(value)]
        return line

    def on_kill(self) -> None:
        """Stop the job after its current chunk. It may have ended already."""
        with suppress(ProcessLookupError):
            self.subprocess_hook.send_sigterm()


class GateOperator(JobOperator):
    """Run ``gate KIND``. A failed gate fails the task without a retry, with the reasons in its log."""

    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (EvaluationPageLink(),)
    ui_color = "#fee2e2"


TIME_LIMIT = timedelta(days=3)


class PromotionApproval(ApprovalOperator):  # type: ignore[misc]
    """Wait for a person's approval. A rejection, or no response within `TIME_LIMIT`, fails the task.

    If ``is_required`` is false, the task succeeds at once and only the gates decide.
    """

    template_fields: Collection[str] = (*ApprovalOperator.template_fields, "is_required")
    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (
        *ApprovalOperator.operator_extra_links,
        CatalogPageLink(),
    )
    ui_color = "#dcfce7"

    def __init__(self, *, is_required: bool | str, **kwargs: Any) -> None:
        super().__init__(
            defaults=self.REJECT,
            # If the task were skipped, a rejected run would look successful.
            fail_on_reject=True,
            response_timeout=TIME_LIMIT,
            **kwargs,
        )
        self.is_required = is_required

    def execute(self, context: Context) -> Any:
        """Ask for approval if it is required."""
        if self.is_required:
            return super().execute(context)
        self.log.info("no approval required: the gates have decided")
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Handle the response.

        Raises:
            AirflowFailException: it is a rejection, or nobody responded. Airflow must not retry and ask again.
        """
        try:
            return super().execute_complete(context, event)
        except HITLRejectException:
            error = "the promotion was rejected, or nobody responded in time"
            context["ti"].xcom_push(key=ERROR_KEY, value=error)
            raise AirflowFailException(error) from None
