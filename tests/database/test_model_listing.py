import json
from dataclasses import asdict

import pytest
from sqlalchemy import Engine

from fixtures.catalog_rows import NewImage, add_images, open_live_space, promote_model, register_model
from fixtures.gate_results import GateResults, store_gate_results
from jobs.database.model_listing import list_model_versions, show_model_version
from jobs.database.spaces import drop_space, list_spaces, make_space_live
from jobs.errors import PermanentError


def test_versions_are_listed_with_what_they_are(engine: Engine) -> None:
    with engine.connect() as connection:
        live = promote_model(connection, "classifier")
        champion = promote_model(connection, "classifier", is_live=False)
        candidate = register_model(connection, "classifier")
        summaries = {summary.model_version_id: summary for summary in list_model_versions(connection)}
    assert list(summaries) == [candidate, champion, live]
    states = {key: (s.is_champion, s.is_live, s.was_live) for key, s in summaries.items()}
    assert states == {
        candidate: (False, False, False),
        champion: (True, False, False),
        live: (False, True, True),
    }


def test_a_version_is_shown_with_its_history(engine: Engine) -> None:
    with engine.connect() as connection:
        before = promote_model(connection, "classifier")
        version = promote_model(connection, "classifier")
        evaluation = store_gate_results(connection, "run", "classifier", version, GateResults(failed="accuracy"))
        details = show_model_version(connection, version)
        with pytest.raises(PermanentError, match=r"no model version 99\. The existing ones are"):
            show_model_version(connection, 99)
    assert details.summary.is_live
    assert [listed.evaluation_id for listed in details.evaluations] == [evaluation]
    verdicts = {gate.gate: gate.verdict for gate in details.evaluations[0].gates}
    assert verdicts["accuracy"] == "failed"
    assert verdicts["no_leak"] == "passed"
    assert [promotion.promoted_by for promotion in details.promotions] == ["tester"]
    assert len(details.switches) == 1
    assert before != version
    assert json.loads(json.dumps(asdict(details)))["summary"]["created_at"].endswith("Z")


def test_spaces_are_listed_with_what_they_hold(engine: Engine) -> None:
    with engine.connect() as connection:
        classifier = promote_model(connection, "classifier")
        first = open_live_space(connection, 3)
        add_images(connection, [NewImage("p", vector=[1, 0, 0])] * 2, first, classifier)
        second = open_live_space(connection, 2)
        listed = {space.space_id: space for space in list_spaces(connection)}
        assert [(space.state, space.vectors, space.dimensions) for space in listed.values()] == [
            ("retired", 2, 3),
            ("live", 0, 2),
        ]
        assert listed[first].size_bytes > 8192
        make_space_live(connection, first)
        drop_space(connection, second)
        dropped = list_spaces(connection)[1]
    assert (dropped.vectors, dropped.size_bytes, dropped.state) == (None, 0, "retired")
    assert json.dumps(asdict(dropped))
