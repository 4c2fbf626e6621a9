"""Kill both ends of the change feed at random, compare a replica with its source, and measure the lag.

    python -m benchmarks.scenarios.change_feed
    python -m benchmarks.scenarios.change_feed --kills 20

A process changes a catalog on four connections: product tags, labels, images and models, with overlapping transactions
of up to 0.3 s. ``catalog changes --follow`` feeds a replica. Both processes are killed by SIGKILL and started again.
"""

import argparse

from benchmarks.results import publish
from benchmarks.scenarios.change_feed.cost import measure_cost
from benchmarks.scenarios.change_feed.run import Plan, run_feed
from benchmarks.stack import open_stack
from jobs.database.engine import create_database_engine


def main() -> None:
    """Run both parts, and publish the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill")
    parser.add_argument("--seconds", type=float, default=60, help="time to measure the lag without kills")
    parser.add_argument("--seed", type=int, default=0, help="of the random times and changes")
    arguments = parser.parse_args()
    with open_stack() as stack:
        engine = create_database_engine(stack.database_url)
        cost = measure_cost(engine)
        engine.dispose()
    with open_stack() as stack:
        engine = create_database_engine(stack.database_url)
        outcome = run_feed(engine, stack.environment, Plan(arguments.kills, arguments.seconds, seed=arguments.seed))
        engine.dispose()
    if outcome.differences:
        raise SystemExit(f"the replica differs from the source in {outcome.differences} products: {outcome.examples}")
    publish(
        "The change feed",
        f"A replica built from `catalog changes` equals its source after {outcome.kills} kills of the process that "
        "changes the catalog or of the one that reads the feed. Four connections change product tags, labels, images "
        "and models in overlapping transactions of up to 0.3 s. The lag is the time from a commit to the line, p50 and "
        "p95 in s. The other rows compare the nightly writes with and without the triggers of the feed, medians of "
        "interleaved rounds in ms.",
        [outcome.row, *cost],
        targets="no difference after 200 kills; p95 of the lag at most 2 s",
        packages=["psycopg2-binary"],
    )


if __name__ == "__main__":
    main()
