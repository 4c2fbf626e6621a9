"""Read the schedules of the DAGs from the environment. Importing ``jobs.settings`` would delay every parse."""

import os

NO_SCHEDULE = "none"


def read_schedule(variable: str, default: str) -> str | None:
    """Return a cron expression, or None if the DAG has no schedule of its own.

    Raises:
        ValueError: the variable is not a cron expression. Airflow shows the message as the import error of the file.
    """
    # Airflow imports it anyway.
    from croniter import croniter

    schedule = os.environ.get(variable) or default
    if schedule == NO_SCHEDULE:
        return None
    if not croniter.is_valid(schedule):
        raise ValueError(f"{variable} is {schedule!r}, not a cron expression, such as {default!r}, or {NO_SCHEDULE}")
    return schedule
