"""Run the operators for approvals and announcements in a real Airflow."""

from urllib.parse import quote

import pytest

from tests.end_to_end.live_stack import PATIENCE_SECONDS, LiveStack, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("is_approved", "states"),
    [
        (True, {"approve": "success", "go_on": "success"}),
        (False, {"approve": "failed", "go_on": "upstream_failed"}),
    ],
)
def test_run_continues_only_if_approved(stack: LiveStack, is_approved: bool, states: dict[str, str]) -> None:
    run = stack.start_dag("ask", {})
    wait_until(lambda: stack.read_states(run).get("approve") in {"awaiting_input", "deferred"})
    assert stack.airflow.read_approval_text("ask", run.run_id, "approve") == "| gate | verdict |"
    mail = stack.receivers.mails[-1]
    assert mail.title == "Approval needed: May it?"
    page = f"{stack.status.airflow_url}/dags/ask/runs/{quote(run.run_id, safe='')}/tasks/approve/required_actions"
    assert {"| gate | verdict |", page} <= set(mail.text.splitlines())
    stack.answer_approval(run, "approve", is_approved)
    finished = stack.airflow.wait_for_run(run, PATIENCE_SECONDS)
    assert stack.read_states(run) == states
    assert finished.state == ("success" if is_approved else "failed")


def test_optional_approval_is_skipped(stack: LiveStack) -> None:
    run = stack.run_dag("ask", is_asked=False)
    assert stack.read_states(run) == {"approve": "success", "go_on": "success"}


def test_asset_event_triggers_only_if_announced(stack: LiveStack) -> None:
    silent = stack.run_dag("tell_news", is_news=False)
    assert (silent.state, stack.read_states(silent)) == ("success", {"announce": "skipped"})
    assert stack.airflow.list_runs("hear_news") == []
    assert stack.run_dag("tell_news").state == "success"
    wait_until(lambda: len(stack.airflow.list_runs("hear_news")) == 1)
