"""Wait until a test writes a word. Fail unless the word is "go"."""

import time
from pathlib import Path

from airflow.sdk import DAG, Param, task


@task
def listen(folder: str) -> None:
    """Wait for the word."""
    word = Path(folder) / "word"
    while not word.exists():
        time.sleep(0.2)
    if word.read_text(encoding="utf-8") != "go":
        raise RuntimeError(f"the word was {word.read_text(encoding='utf-8')}")


with DAG("wait_for_a_word", schedule=None, max_active_runs=1, params={"folder": Param("", type="string")}):
    listen("{{ params.folder }}")
