"""A human's word before a promotion, where it is asked for."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, ClassVar

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowFailException

from catalog_airflow.page_links import CatalogPageLink

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
