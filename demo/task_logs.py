"""The logs of Airflow's tasks, as files of the local stack with one JSON object in each line."""

import json
from pathlib import Path
from typing import Any

from demo.airflow_client import DagRun, TaskInstance


def locate_task_log(folder: Path, run: DagRun, task: TaskInstance) -> Path:
    """Return the log of the latest attempt, below the folder of all logs."""
    parts = [f"dag_id={run.dag_id}", f"run_id={run.run_id}", f"task_id={task.task_id}"]
    if task.map_index >= 0:
        parts.append(f"map_index={task.map_index}")
    return folder.joinpath(*parts, f"attempt={task.try_number}.log")


def measure_task_log(path: Path) -> int:
    """Return its size in bytes, 0 if there is none yet."""
    return path.stat().st_size if path.exists() else 0


def read_last_lines(path: Path, count: int) -> list[str]:
    """Return the last messages of a log, none if there is none."""
    return [entry["event"] for entry in _read_entries(path)][-count:]


def read_last_error(path: Path) -> str | None:
    """Return what ended the task: the text of its last exception, or else its last error."""
    errors = [entry for entry in _read_entries(path) if entry.get("level") in {"error", "critical"}]
    if not errors:
        return None
    details = errors[-1].get("error_detail")
    message: str = details[0]["exc_value"] if details else errors[-1]["event"]
    return message


def _read_entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    entries = map(_read_entry, path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [entry for entry in entries if entry["event"] and not entry["event"].startswith("::")]


def _read_entry(line: str) -> dict[str, Any]:
    """Read a line; one that is not JSON, as of a task that was killed while it wrote, is a message by itself."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return {"event": line}
    return {**entry, "event": str(entry.get("event", ""))} if isinstance(entry, dict) else {"event": line}
