from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugins.conftest import Context

if TYPE_CHECKING:
    from catalog_airflow.operators import PromotionApproval


def make_approval(**arguments: Any) -> "PromotionApproval":
    from catalog_airflow.operators import PromotionApproval

    return PromotionApproval(task_id="approve", subject="Promote?", body="", **arguments)


def test_no_response_within_three_days_is_a_rejection() -> None:
    approval = make_approval(is_required=True)
    assert approval.defaults == ["Reject"]
    assert approval.response_timeout == timedelta(days=3)


@pytest.mark.parametrize("answer", ["Reject", "Approve"])
def test_a_rejection_fails_the_task_without_a_retry(answer: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    event = {
        "chosen_options": [answer],
        "params_input": {},
        "responded_at": datetime.now(UTC),
        "responded_by_user": None,
        "timedout": False,
    }
    approval, context = make_approval(is_required=True), Context()
    if answer == "Reject":
        with pytest.raises(AirflowFailException):
            approval.execute_complete(context=context, event=event)
        assert context.pushed == {"error": "the promotion was rejected, or nobody responded in time"}
    else:
        assert approval.execute_complete(context=context, event=event)["chosen_options"] == ["Approve"]


def test_without_a_required_approval_the_task_succeeds_at_once() -> None:
    assert make_approval(is_required=False).execute(context={}) is None
