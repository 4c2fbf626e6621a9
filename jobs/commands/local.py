"""Commands of the local stack."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.commands.terminal import show

if TYPE_CHECKING:
    from jobs.local.stack import StackStatus

app = typer.Typer()


def _port_option(*, envvar: str) -> Any:
    """Make an option that ``.env`` sets, too."""

    def read() -> str | None:
        from jobs.settings import read_own_variables

        return read_own_variables().get(envvar) or None

    return typer.Option(envvar=envvar, default_factory=read, show_default=False)


PostgresPortOption = Annotated[int | None, _port_option(envvar="CATALOG_POSTGRES_PORT")]
S3PortOption = Annotated[int | None, _port_option(envvar="CATALOG_S3_PORT")]
AirflowPortOption = Annotated[int | None, _port_option(envvar="CATALOG_AIRFLOW_PORT")]
QueryPortOption = Annotated[int | None, _port_option(envvar="CATALOG_SERVE_PORT")]

stack_app = typer.Typer(
    help="The local stack: Postgres, S3 endpoint, query service and Airflow on this machine.",
    no_args_is_help=True,
)
app.add_typer(stack_app, name="stack")


@stack_app.command("up")
def stack_up(
    postgres_port: PostgresPortOption,
    s3_port: S3PortOption,
    airflow_port: AirflowPortOption,
    query_port: QueryPortOption,
    airflow: Annotated[bool, typer.Option(help="Start Airflow and the query service too.")] = True,
) -> None:
    """Start what does not run yet; data of earlier starts are found again."""
    from jobs.local.airflow_services import AirflowOptions, choose_task_slots
    from jobs.local.ports import WantedPorts
    from jobs.local.stack import start_stack
    from jobs.settings import LOCAL_STACK_FOLDER, names_locations

    uses_stack = not names_locations()
    options = AirflowOptions(pool_slots=choose_task_slots(), jobs_use_stack=uses_stack) if airflow else None
    status = start_stack(LOCAL_STACK_FOLDER, WantedPorts(postgres_port, s3_port, airflow_port, query_port), options)
    show(_format_status(status))


@stack_app.command("status")
def stack_status() -> None:
    """What runs, where, and how to log in."""
    from jobs.local.stack import read_status
    from jobs.settings import LOCAL_STACK_FOLDER

    show(_format_status(read_status(LOCAL_STACK_FOLDER)))


@stack_app.command("down")
def stack_down() -> None:
    """End every process of the stack; its data stay."""
    from jobs.local.stack import stop_stack
    from jobs.settings import LOCAL_STACK_FOLDER

    stop_stack(LOCAL_STACK_FOLDER)
    show("the local stack is down; its data stay in .local/")


def _format_status(status: "StackStatus") -> str:
    """List each service with its process, then the URL and login of the UI if all are running."""
    lines = [
        f"{service.name:<22} {f'running, pid {service.pid}' if service.pid else 'not running'}"
        for service in status.services
    ]
    if status.airflow_url and status.password and all(service.pid for service in status.services):
        login = f"login: {status.username}   password: {status.password}"
        lines += ["", f"Airflow UI: {status.airflow_url}   {login}", "Stop it all with `make down`."]
    return "\n".join(lines)
