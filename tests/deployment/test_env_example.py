import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from dotenv import dotenv_values
from pydantic.fields import FieldInfo

from jobs.commands.settings import render_files
from jobs.settings import (
    GROUPS,
    HOME,
    HOME_VARIABLE,
    LOCATIONS,
    PROJECT_ROOT,
    VARIABLES,
    SettingsGroup,
    load_settings,
    make_settings,
)
from jobs.storage.credentials import AWS_VARIABLES
from tests.deployment.compose_file import find_variables

EXAMPLE = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
ENTRY = re.compile(r"^# ([A-Z][A-Z0-9_]*=.*)$", re.MULTILINE)
RECIPE = re.compile(r"^#   \$ (.+)$", re.MULTILINE)
SETTINGS = {variable: GROUPS[group].model_fields[name] for variable, (group, name) in VARIABLES.items()}
LOCAL_PORTS = set(
    re.findall(
        r'envvar="(CATALOG_\w+_PORT)"', (PROJECT_ROOT / "jobs" / "commands" / "local.py").read_text(encoding="utf-8")
    )
)
AWS_NAMES = set(AWS_VARIABLES.values())


def read_entries() -> dict[str, str]:
    """What a ``.env`` would say if every line of the example were taken in."""
    entries = dotenv_values(stream=io.StringIO("\n".join(ENTRY.findall(EXAMPLE))))
    return {name: value or "" for name, value in entries.items()}


def read_default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


def test_generated_parts_are_up_to_date() -> None:
    files = render_files()
    assert sorted(path.name for path in files) == [".env.example", "docker-compose.yaml"]
    assert [path.name for path, text in files.items() if path.read_text(encoding="utf-8") != text] == []


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_described(name: str) -> None:
    assert SETTINGS[name].description
    assert GROUPS[VARIABLES[name][0]].__doc__ != SettingsGroup.__doc__


def test_it_lists_what_is_read_and_nothing_else() -> None:
    assert len(LOCAL_PORTS) == 4
    compose = {variable.name for variable in find_variables()}
    expected = SETTINGS.keys() | LOCAL_PORTS | AWS_NAMES | compose | {HOME_VARIABLE}
    assert set(read_entries()) == expected


def test_each_is_listed_once() -> None:
    names = [entry.partition("=")[0] for entry in ENTRY.findall(EXAMPLE)]
    assert len(names) == len(set(names))


def test_a_copy_changes_nothing() -> None:
    assert dotenv_values(stream=io.StringIO(EXAMPLE)) == {}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_listed_with_their_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = read_entries()[name]
    if not written:
        # No default, or one that depends on the machine.
        assert read_default(SETTINGS[name]) is None or SETTINGS[name].default_factory
        return
    for location in LOCATIONS[:3]:
        monkeypatch.setenv(location, "postgresql://h/d" if "DATABASE" in location else "s3://b/")
    monkeypatch.setenv(name, written)
    group, field = VARIABLES[name]
    value = getattr(getattr(load_settings(), group), field)
    assert (HOME / value if isinstance(value, Path) else value) == read_default(SETTINGS[name])


def test_compose_variables_are_listed_with_their_default() -> None:
    entries = read_entries()
    for variable in find_variables():
        if variable.name not in SETTINGS.keys() | LOCAL_PORTS | AWS_NAMES:
            # A default that contains another variable is described in the comment.
            has_no_default = variable.operator == ":?" or variable.is_nested
            assert entries[variable.name] == ("" if has_no_default else variable.rest)


def test_ports_of_compose_are_told() -> None:
    for variable in find_variables():
        if variable.name in LOCAL_PORTS:
            assert f"; Compose: {variable.rest}\n# {variable.name}=\n" in EXAMPLE


def test_clients_use_these_credentials() -> None:
    locations = {name: "postgresql://h/d" if "DATABASE" in name else "s3://b/" for name in LOCATIONS[:3]}
    written = {name: name.lower() for name in AWS_NAMES - {"AWS_PROFILE"}}
    session = make_settings(locations | written).credentials.open_session()
    credentials = session.get_credentials()
    assert credentials
    assert credentials.get_frozen_credentials()[:3] == (
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    )
    assert session.region_name == "aws_default_region"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on this machine")
def test_every_secret_has_a_command_that_makes_one() -> None:
    needed = {variable.name for variable in find_variables() if variable.operator == ":?"}
    recipes = RECIPE.findall(EXAMPLE)
    made = [
        subprocess.run(["sh", "-c", recipe], capture_output=True, text=True, check=True).stdout.strip()
        for recipe in recipes
    ]
    assert len(made) == len(set(made)) == len(needed)
    assert all(re.fullmatch(r"[\w=-]{20,}", secret) for secret in made), "a secret must be fit for a URL"
    assert Fernet(made[recipes.index("openssl rand -base64 32 | tr '+/' '-_'")])
