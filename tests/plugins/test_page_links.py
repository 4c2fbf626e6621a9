"""Links from tasks to pages, under any path of Airflow."""

import pytest

RUN = "catalog_ingest/manual__2026-01-01T00:00:00+00:00"
QUOTED = "catalog_ingest%2Fmanual__2026-01-01T00%3A00%3A00%2B00%3A00"


@pytest.mark.parametrize(
    ("command", "link"),
    [
        ("tag-shard", f"/catalog/run?run={QUOTED}"),
        ("complete-retag", f"/catalog/run?run={QUOTED}"),
        ("train", "/catalog/models"),
        ("decide", "/catalog/models"),
    ],
)
def test_a_task_links_to_its_page(command: str, link: str) -> None:
    from catalog_airflow.operators import JobOperator
    from catalog_airflow.page_links import CatalogPageLink

    operator = JobOperator(task_id="a_task", command=command, options={"run": RUN})
    assert CatalogPageLink().get_link(operator, ti_key=None) == link
    assert [found.name for found in operator.operator_extra_links] == ["Catalog"]


def test_a_gate_links_to_the_evaluation_of_its_run_and_kind() -> None:
    from catalog_airflow.operators import GateOperator
    from catalog_airflow.page_links import EvaluationPageLink

    operator = GateOperator(task_id="gate", command="gate", argument="encoder", options={"run": RUN})
    assert EvaluationPageLink().get_link(operator, ti_key=None) == f"/catalog/evaluations/encoder?run={QUOTED}"
    assert [found.name for found in operator.operator_extra_links] == ["Evaluation"]


def test_tasks_without_a_command_link_to_the_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_airflow.operators import AnnouncementOperator
    from catalog_airflow.page_links import CatalogPageLink

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://shop.example/airflow/")
    operator = AnnouncementOperator(task_id="announce", skip_when=True)
    assert CatalogPageLink().get_link(operator, ti_key=None) == "/airflow/catalog/overview"


def test_every_task_of_the_dags_has_a_link(airflow_home: None) -> None:
    import warnings

    from jobs.settings import PROJECT_ROOT

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(PROJECT_ROOT / "dags")
    assert not bag.import_errors
    for dag in bag.dags.values():
        for task in dag.tasks:
            names = {link.name for link in task.operator_extra_links}
            assert names & {"Catalog", "Evaluation"}, task.task_id
