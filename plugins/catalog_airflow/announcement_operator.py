"""A task that does nothing but announce its outlets, when there is a reason to."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowSkipException

from catalog_airflow.page_links import CatalogPageLink


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
