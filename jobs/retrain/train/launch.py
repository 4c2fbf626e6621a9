"""Train on all GPUs of this machine: torchrun runs the command once per GPU."""

import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from jobs.cores import count_cores
from jobs.errors import JobError, PermanentError, RetryableError, TerminatedError
from jobs.models.device import Device
from jobs.models.unpickle import end_with
from jobs.retrain.train.requests import TrainingRequest, needs_all_processes
from jobs.scratch import open_scratch

log = logging.getLogger(__name__)

ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
"""Set by torchrun: where a process describes its error."""


def train_together(words: Sequence[str], request: TrainingRequest, device: Device, processes: int | None) -> None:
    """Run ``python -m jobs`` with these words in several processes, and wait until all succeed.

    The default number of processes is that of the GPUs. Return at once if one process is enough, or if torchrun has
    started this process.

    Raises:
        JobError: a process failed. It is the first error of a process, with its exit code.
    """
    count = processes or (torch.cuda.device_count() if device.is_cuda else 1)
    if count == 1 or "WORLD_SIZE" in os.environ or not needs_all_processes(request):
        return
    log.info("training in %d processes", count)
    launch(("-m", "jobs", *words), count)


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run Python with these arguments in several processes that train together, and wait until all succeed.

    Raises:
        JobError: as `train_together`.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with open_scratch() as folder, _restore_process():
        # As torchrun does, but for several threads per process.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // processes)))
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.5,
            logs_specs=DefaultLogsSpecs(str(folder)),
        )
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except SignalException:
            raise TerminatedError("SIGTERM stopped the training: run the same command to resume") from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            for kind in (RetryableError, PermanentError, TerminatedError):
                if failure.exitcode == kind.exit_code:
                    raise kind(failure.message) from None
            log.error("process %d ended with exit code %d", rank, failure.exitcode)
            sys.exit(1)


@contextmanager
def _restore_process() -> Iterator[None]:
    """Restore afterwards what a launch changes: handlers of signals, and variables that the processes inherit."""
    variables = dict(os.environ)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return ERROR_FILE_VARIABLE in os.environ


@contextmanager
def run_as_launched() -> Iterator[None]:
    """If `train_together` started this process, end together with it and pass it the error."""
    if not is_launched():
        yield
        return
    end_with(os.getppid())
    try:
        yield
    except JobError as error:
        record = {"message": str(error), "timestamp": int(time.time())}
        Path(os.environ[ERROR_FILE_VARIABLE]).write_text(json.dumps(record), encoding="utf-8")
        raise
