"""The process from which those of Airflow are forked: `plugins/catalog_airflow/launcher.py`.

It imports Airflow once for all, while Postgres starts.
"""

import json
import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from jobs.errors import PermanentError, RetryableError
from jobs.local.private_files import open_private_log
from jobs.local.services import Command, Service, keep_previous_log, open_process, quote_log
from jobs.settings import PROJECT_ROOT

_PROGRAM = PROJECT_ROOT / "plugins" / "catalog_airflow" / "launcher.py"
_ORDER_SECONDS = 300.0
"""For one order: the imports come before the first, and the migration of Airflow's tables is one."""


class AirflowLauncher:
    """A launcher that ends with the block; what it started goes on."""

    def __init__(self, environment: Mapping[str, str], stack_id: str, log_path: Path) -> None:
        # Without -P, modules of the plugin would hide those of others.
        command = Command((sys.executable, "-P", str(_PROGRAM)), environment, PROJECT_ROOT)
        self._log_path = log_path
        self._process = open_process(command, stack_id, log_path, takes_orders=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def start_service(self, service: Service, _stack_id: str, log_path: Path) -> int:
        """Start a server of Airflow, as `jobs.local.services.start_service` starts others; return its pid.

        Raises:
            PermanentError: Airflow cannot be imported.
            RetryableError: the launcher does not answer in time.
        """
        keep_previous_log(log_path)
        pid, _ = self._order(service.command, log_path, is_awaited=False)
        return pid

    def run_command(self, command: Command, log_path: Path) -> None:
        """Run a command of Airflow to its end.

        Raises:
            PermanentError: it fails, or Airflow cannot be imported; the message ends with the last lines of the log.
            RetryableError: it does not end in time.
        """
        _, exit_code = self._order(command, log_path, is_awaited=True)
        if exit_code:
            raise PermanentError(f"{' '.join(command.words)} failed with {exit_code}: {quote_log(log_path)}")

    def _order(self, command: Command, log_path: Path, *, is_awaited: bool) -> tuple[int, int | None]:
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        os.close(open_private_log(log_path))
        order = {"words": command.words, "log": str(log_path), "is_awaited": is_awaited}
        try:
            orders.write(json.dumps(order).encode() + b"\n")
            orders.flush()
        except BrokenPipeError:
            raise self._explain_end() from None
        if not select.select([answers], [], [], _ORDER_SECONDS)[0]:
            raise RetryableError(f"{' '.join(command.words)} did not end within {_ORDER_SECONDS:.0f} s: see {log_path}")
        answer = answers.readline()
        if not answer:
            raise self._explain_end()
        report = json.loads(answer)
        return report["pid"], report["exit_code"]

    def _explain_end(self) -> PermanentError:
        return PermanentError(f"Airflow cannot be started: {quote_log(self._log_path)}")
