"""Runs have titles for people, from the ids that Airflow and the command line give them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobs.run_titles import title_run

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("run_id", "title"),
    [
        ("catalog_ingest/scheduled__2026-11-27T10:15:00+00:00", "Ingestion of 27 Nov 2026, 10:15"),
        ("catalog_ingest/manual__2026-11-27T10:15:27.262704+02:00", "Ingestion of 27 Nov 2026, 08:15"),
        ("catalog_retag/asset_triggered__2026-11-02T11:10:01.600185+00:00_onEUoByx", "Retag of 2 Nov 2026, 11:10"),
        ("catalog_retag/manual__2026-11-02T11:10:01+00:00/top-up-2", "Retag of 2 Nov 2026, 11:10, top-up 2"),
        ("model_retrain/manual__2026-11-27T10:15:00+00:00", "Retraining of 27 Nov 2026, 10:15"),
        ("ingest-20261127T101500.123456Z", "Ingestion of 27 Nov 2026, 10:15"),
        ("catalog_ingest/tonight", "Ingestion catalog_ingest/tonight"),
        ("my_dag/2026-13-45T99:99:00+00:00", "Run my_dag/2026-13-45T99:99:00+00:00"),
        # Times that no calendar has, or that cannot be converted to UTC.
        ("my_dag/0001-01-01T00:00:00+23:00", "Run my_dag/0001-01-01T00:00:00+23:00"),
    ],
)
def test_ids_become_titles(run_id: str, title: str) -> None:
    assert title_run(run_id) == title


def test_the_start_and_the_purpose_help_if_the_id_does_not() -> None:
    assert title_run("tonight", NOON, "retag") == "Retag of 27 Nov 2026, 10:00"
    assert title_run("catalog_ingest/2026-11-01T00:00:00Z", NOON) == "Ingestion of 1 Nov 2026, 00:00"
    assert title_run("tonight", NOON.astimezone(UTC)) == "Run of 27 Nov 2026, 10:00"
