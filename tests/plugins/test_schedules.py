import pytest
from catalog_airflow.schedules import NO_SCHEDULE, read_schedule

from jobs import setting_types


@pytest.mark.parametrize(
    ("value", "schedule"), [(None, "0 2 * * *"), ("", "0 2 * * *"), ("30 1 * * 1-5", "30 1 * * 1-5"), ("none", None)]
)
def test_a_schedule_is_read_from_the_environment(
    value: str | None, schedule: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CATALOG_INGEST_SCHEDULE", raising=False)
    if value is not None:
        monkeypatch.setenv("CATALOG_INGEST_SCHEDULE", value)
    assert read_schedule("CATALOG_INGEST_SCHEDULE", "0 2 * * *") == schedule


def test_an_invalid_schedule_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_INGEST_SCHEDULE", "0 25 * * *")
    with pytest.raises(ValueError, match=r"CATALOG_INGEST_SCHEDULE is '0 25 \* \* \*', not a cron expression"):
        read_schedule("CATALOG_INGEST_SCHEDULE", "0 2 * * *")


def test_no_schedule_has_the_same_name_in_the_jobs() -> None:
    assert NO_SCHEDULE == setting_types.NO_SCHEDULE
