"""Read the commands of a section of docs/runbook.md, in the form for Docker Compose."""

import re
import textwrap

from jobs.settings import PROJECT_ROOT

_TEXT = (PROJECT_ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
_COMMANDS = re.compile(r"(?:^ {4,}.*\n)+|`((?:docker compose|catalog) [^`]+)`", re.MULTILINE)
_FORMS = {
    "catalog": "docker compose run --rm --no-deps airflow-worker catalog",
    "airflow": "docker compose exec -T airflow-scheduler airflow",
}
"""The table at the start of the runbook."""


def read_commands(title: str) -> list[str]:
    """Return the code blocks and the inline commands of a section, in their order."""
    section = _TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [
        translate(" ".join(found[1].split())) if found[1] else textwrap.dedent(found[0]).strip()
        for found in _COMMANDS.finditer(section)
    ]


def translate(command: str) -> str:
    """Replace ``catalog`` and ``airflow`` by what runs them in Docker Compose."""
    program, _, rest = command.partition(" ")
    return f"{_FORMS.get(program, program)} {rest}"
