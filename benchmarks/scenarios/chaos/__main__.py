"""Kill jobs, break their surroundings, feed them hostile files, and count what that costs.

    python -m benchmarks.scenarios.chaos
    python -m benchmarks.scenarios.chaos --kills 20 --files 20

It takes about 20 minutes on two cores and writes its table into docs/benchmarks.md, with fewer kills or files only to
the console. The exit code is 1 if anything was lost, done twice or hung, or ended in another way than it should.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from benchmarks.machine import describe_machine
from benchmarks.marked_block import replace_block
from benchmarks.scenarios.chaos.hostile_files import list_feeds
from benchmarks.scenarios.chaos.kills import KillBench
from benchmarks.scenarios.chaos.ledger import Ledger
from benchmarks.scenarios.chaos.scenarios import SCENARIOS
from benchmarks.scenarios.chaos.services import kill_query_service, kill_stack
from benchmarks.scenarios.chaos.surroundings import FAULTS, try_fault
from benchmarks.scenarios.chaos.worlds import run_servers
from jobs.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"
BLOCK = "chaos"
SERVICE_KILLS = {kill_query_service: 6, kill_stack: 4}
KILLS, FILES = sum(one.kills for one in SCENARIOS) + sum(SERVICE_KILLS.values()), 200
THREADS = 2
"""More worlds at a time make the moments of kills more random, and the machine busy."""


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Not all of it repeats: which thread draws next depends on the machine.
    random.seed(arguments.seed)
    ledger, started = Ledger(), time.monotonic()
    with run_servers() as servers, ThreadPoolExecutor(THREADS) as threads:
        bench = KillBench(servers, ledger, arguments.seed)
        list(threads.map(bench.measure, SCENARIOS))
        share = arguments.kills / KILLS
        trials: list[Callable[[], None]] = [
            partial(kill, servers, ledger, round(kills * share)) for kill, kills in SERVICE_KILLS.items()
        ]
        trials += [partial(bench.disturb, scenario, round(scenario.kills * share)) for scenario in SCENARIOS]
        trials += [partial(try_fault, fault, servers, ledger) for fault in FAULTS for _ in range(fault.tries)]
        trials += [partial(feed, servers, ledger) for feed in list_feeds(arguments.files, arguments.seed)]
        are_complete = all(threads.map(_complete, trials))
    minutes = (time.monotonic() - started) / 60
    table = ledger.format()
    print("\n".join(table))
    if are_complete and (arguments.kills, arguments.files) == (KILLS, FILES):
        machine = describe_machine()
        where = f"{machine['cores']} cores of {machine['processor']}"
        how = f"`make chaos`, {datetime.now(UTC):%Y-%m-%d}, {where}, {minutes:.0f} minutes:"
        replace_block(PAGE, BLOCK, ["", how, "", *table, ""])
    if not (are_complete and ledger.is_clean()):
        sys.exit(1)


def _complete(trial: Callable[[], None]) -> bool:
    """Run a trial; one that fails by itself spoils the table, but not the trials after it."""
    try:
        trial()
    except Exception:
        logging.exception("the benchmark itself failed")
        return False
    return True


if __name__ == "__main__":
    main()
