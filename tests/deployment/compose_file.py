"""What docker-compose.yaml says, read without Docker."""

import re
import shlex
from dataclasses import dataclass
from typing import Any

import yaml

from jobs.settings import PROJECT_ROOT

COMPOSE_TEXT = (PROJECT_ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOTS = frozenset({"init"})
OWN_IMAGES = frozenset(name for name, service in SERVICES.items() if service["image"].startswith("catalog-tagger"))

_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<operator>:\?|:-|-)?(?P<rest>[^${}]*)(?P<nested>\$)?")


@dataclass(frozen=True)
class Variable:
    """One use of a variable: ``operator`` is ``:?``, ``:-``, ``-`` or empty, ``rest`` what follows it."""

    name: str
    operator: str
    rest: str
    is_nested: bool
    """The default contains another variable."""


def find_variables() -> list[Variable]:
    """Every ``${NAME...}`` outside of comments, those inside of another one too."""
    code = re.sub(r"^\s*#.*$", "", COMPOSE_TEXT, flags=re.MULTILINE)
    return [
        Variable(found["name"], found["operator"] or "", found["rest"], bool(found["nested"]))
        for found in _VARIABLE.finditer(code)
    ]


def find_calls(program: str) -> list[list[str]]:
    """The arguments of each call of a program in the commands, scripts and health checks."""
    calls = [shlex.split(line) for service in SERVICES.values() for line in _list_shell_lines(service)]
    names = program.split()
    return [call[len(names) :] for call in calls if call[: len(names)] == names]


def _list_shell_lines(service: dict[str, Any]) -> list[str]:
    """Simple commands; a variable is replaced by its default, a shell's by 1."""
    lines = []
    for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])):
        is_script = words[:1] in (["sh"], ["CMD-SHELL"])
        script = words[-1].replace("\\\n", " ") if is_script else shlex.join(words).removeprefix("CMD ")
        lines += re.split(r"[\n|]", script) if is_script else [script]
    return [re.sub(r"\$\$\w+", "1", re.sub(r"\$\{\w+:-(\w+)\}", r"\1", line)) for line in lines]
