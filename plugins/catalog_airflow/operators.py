"""The operators of the DAGs: run a job, wait for a person, announce what happened."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from catalog_airflow.page_links import CatalogPageLink, EvaluationPageLink


class AnnouncementOperator(BaseOperator):  # type: ignore[misc]
    """Announces its ``outlets``, or is skipped, which announces nothing."""

    template_fields: Sequence[str] = ("skip_when",)
    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (CatalogPageLink(),)
    ui_color = "#fef3c7"

    def __init__(self, *, skip_when: bool | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.skip_when = skip_when

    def execute(self, context: Context) -> None:
        """Let Airflow announce the outlets, which it does for every task that succeeds.

        Raises:
            AirflowSkipException: there is nothing to announce.
        """
        if self.skip_when:
            raise AirflowSkipException("nothing to announce")
        self.log.info("announcing %s", ", ".join(outlet.name for outlet in self.outlets))


PROJECT_ROOT = Path(__file__).resolve().parents[2]

PERMANENT_EXIT_CODES = frozenset({2, 78})
"""Wrong usage, and the jobs' own code for faults that a retry cannot cure; a test compares it with theirs."""


class JobOperator(BaseOperator):  # type: ignore[misc]
    """Runs a job and returns its report, the JSON of its last line, as the task's XCom.

    With ``returned_field`` only that field of the report is returned, for tasks to be mapped over, since Airflow
    maps over nothing but return values; the whole report is then the XCom ``report``.

    ``options`` become ``--name value``; those that are None or False are left out, and True is a bare flag.
    ``argument`` is the command's positional argument, for tasks that are mapped over it.
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
        """The process, which `on_kill` has to find."""
        return SubprocessHook()

    def execute(self, context: Context) -> Any:
        """Run the command.

        Raises:
            AirflowSkipException: the run's parameters leave this task out.
            AirflowFailException: the job says that a retry cannot help.
            AirflowException: any other fault; Airflow tries again.
        """
        if self.skip_when:
            raise AirflowSkipException("left out by the run's parameters")
        result = self.subprocess_hook.run_command(self.build_command(), cwd=str(PROJECT_ROOT))
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
        """The command line."""
        line = [sys.executable, "-m", "jobs", self.command]
        if self.argument is not None:
            line.append(str(self.argument))
        for name, value in (self.options or {}).items():
            if value is True:
                line.append(f"--{name}")
            elif value is not None and value is not False:
                line += [f"--{name}", str(value)]
        return line

    def on_kill(self) -> None:
        """Let the job finish its chunk and stop; one that ended by itself just now is left alone."""
        with suppress(ProcessLookupError):
            self.subprocess_hook.send_sigterm()


class GateOperator(JobOperator):
    """Runs ``gate KIND``; a gate that failed fails the task at once, with the reasons in its log."""

    operator_extra_links: ClassVar[Collection[BaseOperatorLink]] = (EvaluationPageLink(),)
    ui_color = "#fee2e2"


TIME_LIMIT = timedelta(days=3)


class PromotionApproval(ApprovalOperator):  # type: ignore[misc]
    """Waits for an approval; refusal is the default, at once when it is chosen and after `TIME_LIMIT`.

    Where ``is_required`` is false the gates alone decide, and the task succeeds without asking.
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
            # Not a skipped task: a run whose candidate was refused must not look like one that promoted it.
            fail_on_reject=True,
            response_timeout=TIME_LIMIT,
            **kwargs,
        )
        self.is_required = is_required

    def execute(self, context: Context) -> Any:
        """Ask, if that is wanted."""
        if self.is_required:
            return super().execute(context)
        self.log.info("no approval is asked for: the gates have decided")
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the answer.

        Raises:
            AirflowFailException: it is a refusal, which no retry shall ask about again.
        """
        try:
            return super().execute_complete(context, event)
        except HITLRejectException:
            raise AirflowFailException("the promotion was refused, or nobody answered in time") from None
