"""Jobs that are killed at random moments and started again, until they end well."""

import logging
import random
import signal
import threading
from collections.abc import Sequence

from benchmarks.scenarios.chaos.jobs import DONE, Kill
from benchmarks.scenarios.chaos.ledger import Harm, Ledger
from benchmarks.scenarios.chaos.scenarios import Scenario, World
from benchmarks.scenarios.chaos.worlds import Servers

log = logging.getLogger(__name__)

GENTLE_SHARE = 0.2
"""Of SIGTERM, at which a job ends by itself; the others are SIGKILL."""
TERMINATED = 143
MAX_MISSES = 2
"""Kills of a job that came after its end: then there is little left to kill in this world."""
MAX_WORLDS = 4
"""Times as many as would do if every kill met a living job."""


class KillBench:
    """Knows how long each job takes when nobody disturbs it, so that kills may come at any moment of it."""

    def __init__(self, servers: Servers, ledger: Ledger, seed: int) -> None:
        self._servers = servers
        self._ledger = ledger
        self._random = random.Random(seed)
        self._seconds: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def measure(self, scenario: Scenario) -> None:
        """Run the jobs of a scenario undisturbed; it must do no harm."""
        with self._servers.open_world() as world:
            scenario.prepare(world)
            harm = Harm()
            for number, words in enumerate(scenario.list_jobs(world)):
                ended = world.jobs.run(*words)
                harm += ended.judge(DONE)
                self._seconds[scenario.name, number] = ended.seconds
            harm += scenario.judge(world)
        if harm:
            raise SystemExit(f"{scenario.name}: {harm} without any kill; the log says more")

    def disturb(self, scenario: Scenario, kills: int) -> None:
        """Kill jobs of a scenario, a few in each world, until enough kills have met a living job."""
        done, worlds = 0, 0
        while done < kills and worlds < MAX_WORLDS * kills / scenario.kills_of_a_world:
            done += self._disturb_world(scenario, min(kills - done, scenario.kills_of_a_world))
            worlds += 1

    def _disturb_world(self, scenario: Scenario, kills: int) -> int:
        """Kill jobs in a world of their own, have each end, look what is left; return how many kills there were."""
        with self._servers.open_world() as world:
            scenario.prepare(world)
            of_jobs = self._share_out(scenario, kills)
            done, harm = 0, Harm()
            for number, words in enumerate(scenario.list_jobs(world)):
                made, cost = self._kill(world, words, (scenario.name, number), of_jobs.count(number))
                done += made
                harm += cost
                harm += world.jobs.run_until_done(*words).judge(DONE)
            cost = scenario.judge(world)
            if cost:
                log.warning("%s: %s", scenario.name, cost)
        self._ledger.add(scenario.name, harm + cost, done)
        return done

    def _share_out(self, scenario: Scenario, kills: int) -> Sequence[int]:
        """The number of the job of each kill: the longer it takes, the more often."""
        seconds = {number: taken for (name, number), taken in self._seconds.items() if name == scenario.name}
        with self._lock:
            return self._random.choices(list(seconds), list(seconds.values()), k=kills)

    def _kill(self, world: World, words: tuple[str, ...], job: tuple[str, int], kills: int) -> tuple[int, Harm]:
        done, misses, harm = 0, 0, Harm()
        while done < kills and misses < MAX_MISSES:
            with self._lock:
                is_gentle = self._random.random() < GENTLE_SHARE
                moment = self._random.uniform(0.05, self._seconds[job])
            number = signal.SIGTERM if is_gentle else signal.SIGKILL
            ended = world.jobs.run(*words, kill=Kill(moment, number))
            harm += ended.judge(DONE, -number, TERMINATED) if ended.was_killed else ended.judge(DONE)
            done += ended.was_killed
            if not ended.was_killed:
                # What it was measured at was too long: by a first run, on a machine that was busier.
                self._seconds[job] = min(self._seconds[job], ended.seconds)
                misses += 1
        return done, harm
