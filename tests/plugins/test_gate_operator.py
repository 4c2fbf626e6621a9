def test_the_link_leads_to_the_page_of_this_run_and_kind() -> None:
    from catalog_airflow.gate_operator import EvaluationPageLink, GateOperator

    operator = GateOperator(
        task_id="gate",
        command="gate",
        argument="encoder",
        options={"run": "model_retrain/manual__2026-01-01T00:00:00+00:00"},
    )
    link = EvaluationPageLink().get_link(operator, ti_key=None)
    assert link == "/catalog/evaluations/encoder?run=model_retrain%2Fmanual__2026-01-01T00%3A00%3A00%2B00%3A00"
    assert [found.name for found in operator.operator_extra_links] == ["Evaluation"]
