"""Send signals to jobs at various moments."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.job_processes import count_waiting, start_job, wait_until
from fixtures.shop import Shop
from jobs.errors import TerminatedError
from jobs.stopping import finish_steps, is_stop_requested

CHUNKS = "SELECT count(*) FROM catalog.run_chunks"


def end_late() -> None:
    with finish_steps():
        os.kill(os.getpid(), signal.SIGTERM)
        assert is_stop_requested()


def end_between_two_inner_blocks() -> None:
    with finish_steps():
        with finish_steps():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        with finish_steps():
            assert is_stop_requested()


@pytest.mark.parametrize("end", [end_late, end_between_two_inner_blocks])
def test_no_signal_is_lost(end: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError):
        end()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_does_not_affect_the_next_job() -> None:
    with pytest.raises(TerminatedError):
        end_late()
    with finish_steps():
        assert not is_stop_requested()


def test_sigterm_in_the_last_chunk_ends_the_job_after_it(tagging_shop: Shop, tmp_path: Path) -> None:
    tagging_shop.put_images(4)
    with tagging_shop.connections.engine.connect() as blocker:
        blocker.exec_driver_sql("LOCK TABLE catalog.image_tags IN EXCLUSIVE MODE")
        process = start_job("ingest", environment=tagging_shop.environment, messages=tmp_path / "messages")
        wait_until(lambda: count_waiting(tagging_shop, "catalog.image_tags") > 0)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, (tmp_path / "messages").read_text()
    # The chunk was committed, but nothing was published afterward.
    assert tagging_shop.query(CHUNKS) == [(1,)]
    assert tagging_shop.query("SELECT count(*) FROM catalog.product_tags") == [(0,)]
