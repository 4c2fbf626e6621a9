import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psutil
import pytest

from fixtures.shop import Shop
from jobs import errors
from jobs.settings import PROJECT_ROOT, VARIABLES
from tests.plugins.conftest import Context

if TYPE_CHECKING:
    from catalog_airflow.operators import JobOperator


def make_operator(**arguments: Any) -> "JobOperator":
    from catalog_airflow.operators import JobOperator

    return JobOperator(task_id="job", **arguments)


def make_python_operator(code: str, **arguments: Any) -> "JobOperator":
    """Return an operator that runs Python code instead of a job."""
    from catalog_airflow.operators import JobOperator

    class PythonOperator(JobOperator):
        def build_command(self) -> list[str]:
            return [sys.executable, "-c", code]

    return PythonOperator(task_id="job", command="code", **arguments)


@pytest.fixture
def dead_database() -> Iterator[None]:
    """Return settings with an unreachable database."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        unset = dict.fromkeys(VARIABLES, "")
        settings = {
            "CATALOG_DATABASE_URL": f"postgresql://shop:hush@127.0.0.1:{unused.getsockname()[1]}/catalog",
            "CATALOG_SOURCE_URI": "s3://images/",
            "CATALOG_ARTIFACTS_URI": "s3://artifacts/",
        }
        with patch.dict(os.environ, unset | settings):
            yield


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"command": "migrate"}, ["migrate"]),
        ({"command": "report", "options": {"run": "a b/c"}}, ["report", "--run", "a b/c"]),
        ({"command": "tag-shard", "argument": 0, "options": {"run": "1"}}, ["tag-shard", "0", "--run", "1"]),
        ({"command": "embed-text", "argument": "a red 'dress'; rm"}, ["embed-text", "a red 'dress'; rm"]),
        (
            {"command": "discover", "options": {"run": "1", "source": None, "limit": 5, "force": False, "plan": True}},
            ["discover", "--run", "1", "--limit", "5", "--plan"],
        ),
        ({"command": "discover", "options": {"limit": 1, "plan": 0}}, ["discover", "--limit", "1", "--plan", "0"]),
    ],
)
def test_the_command_line_is_built_from_the_arguments(arguments: dict[str, Any], line: list[str]) -> None:
    assert make_operator(**arguments).build_command() == [sys.executable, "-m", "jobs", *line]


def test_the_permanent_exit_codes_are_those_of_jobs() -> None:
    from catalog_airflow.operators import PERMANENT_EXIT_CODES

    faults = [errors.RetryableError, errors.PermanentError, errors.TerminatedError]
    assert {fault.exit_code for fault in faults if fault.exit_code in PERMANENT_EXIT_CODES} == {errors.EXIT_PERMANENT}
    # Exit code of the command-line parser for wrong usage.
    assert {2, errors.EXIT_PERMANENT} == PERMANENT_EXIT_CODES


@pytest.mark.usefixtures("dead_database")
def test_a_temporary_error_is_retried() -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    context = Context()
    with pytest.raises(AirflowException, match=r"cannot reach the database.*exit code 75") as caught:
        make_operator(command="report", options={"run": "nope"}).execute(context)
    assert context.pushed["error"].startswith("cannot reach the database"), "the message of the run quotes it"
    assert not isinstance(caught.value, AirflowFailException)
    assert "hush" not in str(caught.value)


@pytest.mark.usefixtures("dead_database")
@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"run": "nope"}, {"CATALOG_SOURCE_URI": ""}, r"CATALOG_SOURCE_URI is not set.*exit code 78"),
        ({"run": "nope", "nonsense": 1}, {}, "exit code 2"),
    ],
)
def test_a_permanent_error_is_not_retried(options: dict[str, Any], changes: dict[str, str], words: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with patch.dict(os.environ, changes), pytest.raises(AirflowFailException, match=words):
        make_operator(command="report", options=options).execute(Context())


@pytest.mark.parametrize(
    "code", ["import sys; sys.exit(1)", "import os; os.kill(os.getpid(), 9)", "raise SystemExit(143)"]
)
def test_a_crash_is_retried(code: str) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as caught:
        make_python_operator(code).execute(Context())
    assert not isinstance(caught.value, AirflowFailException)


def test_a_task_returns_the_report_of_its_job(tagging_shop: Shop) -> None:
    with patch.dict(os.environ, tagging_shop.environment):
        plan = make_operator(command="discover", options={"run": "night/1"}).execute(Context())
    assert (plan["run_id"], plan["entries"], plan["shards"]) == ("night/1", 0, [])


def test_the_report_is_the_last_line_of_output() -> None:
    code = (
        "import sys; print('{\"not\": 1}'); print('working', file=sys.stderr); print('{\"shards\": [0, 1], \"ü\": 2}')"
    )
    assert make_python_operator(code).execute(Context()) == {"shards": [0, 1], "ü": 2}


def test_one_field_is_returned_and_the_report_is_another_xcom() -> None:
    report = {"shards": [0, 1], "entries": 5}
    context = Context()
    returned = make_python_operator(f"print({json.dumps(json.dumps(report))})", returned_field="shards").execute(
        context
    )
    assert returned == [0, 1]
    assert context.pushed == {"report": report}


def make_environment(folder: Path, *absent: str) -> Path:
    """Create a virtual environment with all installed packages but these, and return its interpreter."""
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({absent}))"
    (packages / "installed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{blocked}\n")
    return folder / "bin" / "python"


RUN_JOB = """
import json, warnings
warnings.simplefilter("ignore")
import catalog_airflow.pages.app
from catalog_airflow.operators import JobOperator
print(json.dumps(JobOperator(task_id="job", command="discover", options={"run": "night/1"}).execute({})))
"""


def test_airflow_and_jobs_run_in_separate_environments(tagging_shop: Shop, tmp_path: Path) -> None:
    airflow = make_environment(tmp_path / "airflow", "torch", "torchvision", "transformers", "timm", "openvino", "nncf")
    jobs = make_environment(tmp_path / "jobs", "airflow", "fastapi")
    finished = subprocess.run(
        [airflow, "-c", RUN_JOB],
        env={
            **os.environ,
            **tagging_shop.environment,
            "CATALOG_PYTHON": str(jobs),
            "PYTHONPATH": os.pathsep.join((str(PROJECT_ROOT), str(PROJECT_ROOT / "plugins"))),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert str(jobs) in finished.stdout
    assert json.loads(finished.stdout.splitlines()[-1])["shards"] == []


def test_a_missing_interpreter_is_one_line_and_not_retried(tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    (tmp_path / "text").write_text("not executable")
    for path in (tmp_path / "absent", tmp_path / "text", tmp_path):
        with (
            patch.dict(os.environ, {"CATALOG_PYTHON": str(path)}),
            pytest.raises(AirflowFailException, match=f"^CATALOG_PYTHON={path} is not an executable file [^\n]*$"),
        ):
            make_operator(command="report", options={"run": "1"}).execute(Context())


def test_a_relative_interpreter_is_in_the_project() -> None:
    with patch.dict(os.environ, {"CATALOG_PYTHON": ".venv-jobs/bin/python"}):
        assert make_operator(command="report").build_command()[0] == str(PROJECT_ROOT / ".venv-jobs/bin/python")


def test_a_skipped_task_runs_nothing() -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException):
        make_python_operator("raise SystemExit(78)", skip_when=True).execute(Context())


def test_jobs_run_in_the_project() -> None:
    assert make_python_operator("import json, os; print(json.dumps(os.getcwd()))").execute(Context()) == str(
        PROJECT_ROOT
    )


def test_killing_a_task_lets_its_job_finish() -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('chunk saved', flush=True), sys.exit(143)))\n"
        "time.sleep(600)\n"
    )
    operator = make_python_operator(code)
    raised: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute(Context())
        except AirflowException as error:
            raised.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    process = wait_for_job(operator)
    try:
        operator.on_kill()
        thread.join(timeout=60)
        assert not process.is_running()
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        thread.join()
    assert str(raised[0]) == f"chunk saved (exit code {128 + signal.SIGTERM})"
    assert not isinstance(raised[0], AirflowFailException)


def wait_for_job(operator: "JobOperator") -> psutil.Process:
    """Wait until the job's process handles signals, and return it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        started = operator.subprocess_hook.sub_process
        if started is not None and catches_sigterm(started.pid):
            return psutil.Process(started.pid)
        time.sleep(0.02)
    raise AssertionError("the job did not start")


def catches_sigterm(pid: int) -> bool:
    """Return whether a process handles SIGTERM, according to /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_killing_a_task_without_a_job_is_harmless() -> None:
    make_operator(command="report").on_kill()


def test_killing_a_task_whose_job_has_just_ended_is_harmless() -> None:
    operator = make_python_operator("print('{}')")
    operator.execute(Context())
    operator.on_kill()
