"""Commands of the local stack."""

from typing import Annotated, Any

import typer

from jobs.commands.options import give_examples
from jobs.commands.terminal import print_text, show
from jobs.local.airflow_services import AirflowOptions, choose_task_slots
from jobs.local.ports import WantedPorts
from jobs.local.stack import StackStatus, read_status, start_stack, stop_stack
from jobs.settings import LOCAL_STACK_FOLDER, names_locations, read_own_variables

app = typer.Typer()


def _port_option(*, envvar: str) -> Any:
    """Make an option that ``.env`` can set, too."""

    def read() -> str | None:

        return read_own_variables().get(envvar) or None

    return typer.Option(envvar=envvar, default_factory=read, show_default=False)


PostgresPortOption = Annotated[int | None, _port_option(envvar="CATALOG_POSTGRES_PORT")]
S3PortOption = Annotated[int | None, _port_option(envvar="CATALOG_S3_PORT")]
AirflowPortOption = Annotated[int | None, _port_option(envvar="CATALOG_AIRFLOW_PORT")]
QueryPortOption = Annotated[int | None, _port_option(envvar="CATALOG_SERVE_PORT")]

stack_app = typer.Typer(
    help="Run Postgres, an S3 endpoint, the query service and Airflow on this machine.",
    no_args_is_help=True,
)
app.add_typer(stack_app, name="stack")


@stack_app.command(
    "up",
    epilog=give_examples("catalog stack up", "catalog stack up --no-airflow", "catalog stack up --airflow-port 8081"),
)
def stack_up(
    postgres_port: PostgresPortOption,
    s3_port: S3PortOption,
    airflow_port: AirflowPortOption,
    query_port: QueryPortOption,
    airflow: Annotated[bool, typer.Option(help="Also start Airflow and the query service.")] = True,
) -> None:
    """Start the services that are not running. Data of earlier starts are kept."""
    uses_stack = not names_locations()
    options = AirflowOptions(pool_slots=choose_task_slots(), jobs_use_stack=uses_stack) if airflow else None
    status = start_stack(LOCAL_STACK_FOLDER, WantedPorts(postgres_port, s3_port, airflow_port, query_port), options)
    _print_status(status)


@stack_app.command("status", epilog=give_examples("catalog stack status"))
def stack_status() -> None:
    """Show the services, their addresses and the login."""
    _print_status(read_status(LOCAL_STACK_FOLDER))


@stack_app.command("down", epilog=give_examples("catalog stack down"))
def stack_down() -> None:
    """Stop all services. Their data stay in .local/."""
    stop_stack(LOCAL_STACK_FOLDER)
    show("the local stack is down; its data remains in .local/")


def _print_status(status: StackStatus) -> None:
    services = {service.name: service.pid for service in status.services}
    # Without the password, because JSON often ends up in logs.
    print_text({"services": services, "airflow_url": status.airflow_url}, _format_status(status))


def _format_status(status: StackStatus) -> str:
    """List each service with its process, then the URL and login of the UI if all are running."""
    lines = [
        f"{service.name:<22} {f'running, pid {service.pid}' if service.pid else 'not running'}"
        for service in status.services
    ]
    if status.airflow_url and status.password and all(service.pid for service in status.services):
        login = f"login: {status.username}   password: {status.password}"
        lines += ["", f"Airflow UI: {status.airflow_url}   {login}", "Stop it all with `make down`."]
    return "\n".join(lines)
