"""Give runs titles for people, such as "Ingestion of 27 Nov 2026, 10:15"."""

import re
from datetime import UTC, datetime

KINDS = {
    "catalog_ingest": "Ingestion",
    "ingest": "Ingestion",
    "catalog_retag": "Retag",
    "retag": "Retag",
    "model_retrain": "Retraining",
    "retrain": "Retraining",
    "model_decision": "Decision",
    "catalog_maintenance": "Maintenance",
    "build": "Build",
    "import": "Import of labels",
}
"""Titles by DAG, by the purpose of a tagging run, and by the prefix of runs that were started without Airflow."""
TIME = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})T(\d{2}):?(\d{2})[\d:.]*(Z|[+-]\d{2}:\d{2})?")
TOP_UP = re.compile(r"/top-up-(\d+)$")


def title_run(run_id: str, started_at: datetime | None = None, purpose: str = "") -> str:
    """Return the title of a run. Its time comes from its id, so that all pages show the same one, or else its start.

    ``purpose`` is that of the tagging run, if it is known. Without a time, the title contains the id. Times are in UTC.
    """
    kind = KINDS.get(re.split("[/-]", run_id, maxsplit=1)[0]) or KINDS.get(purpose, "Run")
    top_up = TOP_UP.search(run_id)
    moment = _read_time(run_id) or started_at
    title = f"{kind} of {format_title_time(moment)}" if moment else f"{kind} {run_id}"
    return f"{title}, top-up {top_up[1]}" if top_up and moment else title


def format_title_time(moment: datetime) -> str:
    """Format a time to the minute, in UTC: ``27 Nov 2026, 10:15``."""
    return moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M")


def _read_time(run_id: str) -> datetime | None:
    """Read the time in the id of a run, as Airflow and the command line write it."""
    found = TIME.search(run_id)
    if found is None:
        return None
    zone = (found[6] or "Z").replace("Z", "+00:00")
    try:
        day, clock = "-".join(found.group(1, 2, 3)), ":".join(found.group(4, 5))
        return datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
