import base64
import hashlib
import hmac
import re

import psycopg2
import pytest
from sqlalchemy import make_url

from fixtures.postgres import query
from jobs.database.migrations import migrate
from tests.deployment.conftest import PASSWORDS
from tests.deployment.postgres_programs import run_create_databases


def connect_as(server_url: str, role: str, database: str) -> str:
    return make_url(server_url).set(username=role, database=database).render_as_string(hide_password=False)


def test_the_owner_can_upgrade_the_catalog_again_and_again(deployment: str) -> None:
    url = connect_as(deployment, "tagger", "catalog")
    assert migrate(url).applied
    assert migrate(url).applied == ()
    assert query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


def test_each_owner_enters_its_own_database_alone(deployment: str) -> None:
    assert query(connect_as(deployment, "airflow", "airflow"), "SELECT 1") == 1
    for role, database in (("airflow", "catalog"), ("tagger", "airflow")):
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            psycopg2.connect(connect_as(deployment, role, database))


def test_the_roles_have_the_passwords_of_the_environment(deployment: str) -> None:
    for role in ("tagger", "airflow"):
        password = PASSWORDS[f"POSTGRES_{role.upper()}_PASSWORD"]
        verifier = query(deployment, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
        iterations, salt, stored_key = re.split("[$:]", verifier)[1:4]
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        assert hashlib.sha256(client_key).digest() == base64.b64decode(stored_key)


def test_a_missing_password_ends_the_script(postgres_server: str) -> None:
    assert run_create_databases(postgres_server, {}).returncode != 0
    assert query(postgres_server, "SELECT count(*) FROM pg_roles WHERE rolname = 'tagger'") == 0
