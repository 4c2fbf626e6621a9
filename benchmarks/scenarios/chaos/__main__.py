"""Kill jobs, break their environment, feed them hostile files, and count what goes wrong.

    make chaos
    python -m benchmarks.scenarios.chaos --kills 20 --files 20

A complete run takes about 20 minutes on two cores. The exit code is 1 if data was lost or duplicated, if a job hung, or
if a job ended in an unexpected way.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.results import publish
from benchmarks.scenarios.chaos.faults import FAULTS, try_fault
from benchmarks.scenarios.chaos.hostile_files import list_feeds
from benchmarks.scenarios.chaos.kill_scenarios import SCENARIOS
from benchmarks.scenarios.chaos.kills import Killer
from benchmarks.scenarios.chaos.sandboxes import run_servers
from benchmarks.scenarios.chaos.services import kill_query_service, kill_stack
from benchmarks.scenarios.chaos.tally import Tally

SERVICE_KILLS = {kill_query_service: 6, kill_stack: 4}
KILLS, FILES = sum(one.kills for one in SCENARIOS) + sum(SERVICE_KILLS.values()), 200
THREADS = 2
"""Concurrent sandboxes. More of them make the timing of kills more random, but also the machine busier."""


def main() -> None:
    """Run everything and publish the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # A run is not fully repeatable, because the order in which threads draw numbers depends on the machine.
    random.seed(arguments.seed)
    tally, started = Tally(), time.monotonic()
    with run_servers() as servers, ThreadPoolExecutor(THREADS) as threads:
        killer = Killer(servers, tally, arguments.seed)
        list(threads.map(killer.measure, SCENARIOS))
        share = arguments.kills / KILLS
        trials: list[Callable[[], None]] = [
            partial(kill, servers, tally, round(kills * share)) for kill, kills in SERVICE_KILLS.items()
        ]
        trials += [partial(killer.kill, scenario, round(scenario.kills * share)) for scenario in SCENARIOS]
        trials += [partial(try_fault, fault, servers, tally) for fault in FAULTS for _ in range(fault.tries)]
        trials += [partial(feed, servers, tally) for feed in list_feeds(arguments.files, arguments.seed)]
        are_complete = all(list(threads.map(_complete, trials)))
    minutes = (time.monotonic() - started) / 60
    publish(
        "Kills, faults and hostile files",
        "Jobs and services are killed at random moments, their environment is broken, and they read damaged or "
        "malicious files; afterwards the same command must complete the work. Counted are images, labels and versions "
        "lost or duplicated, hung or orphaned processes, and wrong exit codes and messages. "
        f"{minutes:.0f} minutes.",
        tally.list_groups(),
        details=tally.list_faults(),
    )
    if not (are_complete and tally.is_clean()):
        sys.exit(1)


def _complete(trial: Callable[[], None]) -> bool:
    """Run a trial. If the trial itself raises an error, log it and return False, so that other trials continue."""
    try:
        trial()
    except Exception:
        logging.exception("the benchmark itself failed")
        return False
    return True


if __name__ == "__main__":
    main()
