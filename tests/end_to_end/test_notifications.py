"""Receive the notifications of a real Airflow by mail and by HTTP, and its metrics."""

from urllib.parse import quote

import pytest

from demo.airflow_client import DagRun
from fixtures.notification_receivers import Received
from tests.end_to_end.live_stack import LiveStack, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

TITLES = (
    "Promoted classifier 7",
    "Gate failed: the new classifier is not promoted",
    "fail_and_notify failed: tag_shard, report",
)


@pytest.fixture(scope="module")
def run(stack: LiveStack) -> DagRun:
    """Run a DAG that fails, and wait for all its messages."""
    stack.receivers.mails.clear()
    stack.receivers.posts.clear()
    run = stack.run_dag("fail_and_notify")
    wait_until(lambda: {*TITLES} <= {mail.title for mail in stack.receivers.mails})
    return run


def test_each_event_sends_one_message_to_the_urls_of_its_level(stack: LiveStack, run: DagRun) -> None:
    mails, posts = stack.receivers.mails, stack.receivers.posts
    assert sorted(mail.title for mail in mails) == sorted(TITLES)
    assert [(post.title, post.level) for post in posts] == [(TITLES[1], "failure"), (TITLES[2], "failure")]
    assert set(posts[1].text.splitlines()) >= {
        "tag_shard 0: cannot reach the bucket",
        "tag_shard 1: {{ nothing }}",
        "report: 2 of 3 images failed",
        f"{stack.status.airflow_url}/dags/fail_and_notify/runs/{quote(run.run_id, safe='')}",
    }
    assert posts[1].text.split() == find_mail(mails, TITLES[2]).text.split()

    assert "accuracy 0.5 is below 0.9" in find_mail(mails, TITLES[1]).text


def find_mail(mails: list[Received], title: str) -> Received:
    return next(mail for mail in mails if mail.title == title)


def test_a_link_leads_to_the_page_of_the_catalog(stack: LiveStack, run: DagRun) -> None:
    assert f"{stack.status.airflow_url}/catalog/models" in find_mail(stack.receivers.mails, TITLES[0]).text.splitlines()


def test_an_unreachable_url_is_one_line_in_the_log(stack: LiveStack, run: DagRun) -> None:
    """The run's callback runs in the DAG processor, after the tasks."""
    logs = stack.status.folder / "airflow" / "logs" / "dag_processor"

    def read_lines() -> list[str]:
        return [line for log in logs.rglob("fail_and_notify.py.log") for line in log.read_text().splitlines()]

    wait_until(lambda: any("to form" in line for line in read_lines()), 30)
    lines = read_lines()
    assert len([line for line in lines if "form" in line]) == 1, lines
    assert "hush" not in "".join(lines)


def test_airflow_exports_its_metrics(stack: LiveStack, run: DagRun) -> None:
    tagged = {
        "airflow.dagrun.duration.failed,dag_id=fail_and_notify",
        "airflow.ti.finish,dag_id=fail_and_notify,task_id=report,state=failed",
        "airflow.pool.running_slots,pool_name=catalog_gpu",
    }
    wait_until(lambda: tagged <= {strip_other_tags(name) for name in stack.receivers.metrics.copy()}, 30)


def strip_other_tags(metric: str) -> str:
    """Remove the tags of a metric that no panel of the dashboard uses."""
    name, *tags = metric.split(",")
    return ",".join([name, *(tag for tag in tags if tag.startswith(("dag_id=", "task_id=", "state=", "pool_name=")))])
