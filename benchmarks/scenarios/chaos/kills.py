"""Kill jobs at random moments and repeat them until they succeed."""

import logging
import random
import signal
import threading
from collections.abc import Sequence

from benchmarks.scenarios.chaos.jobs import DONE, Kill
from benchmarks.scenarios.chaos.kill_scenarios import Sandbox, Scenario
from benchmarks.scenarios.chaos.sandboxes import Servers
from benchmarks.scenarios.chaos.tally import KILL_JOBS, Tally, Violations

log = logging.getLogger(__name__)

TERMINATE_SHARE = 0.2
"""Share of kills by SIGTERM, on which a job shuts down by itself. All other kills are SIGKILL."""
TERMINATED = 143
MAX_MISSES = 2
"""Stop killing a job after so many kills that came too late, because it has too little left to do in this sandbox."""
MAX_SANDBOXES = 4
"""A multiple of the number of sandboxes that would be enough if every kill hit a running job."""


class Killer:
    """Kills jobs at random moments. Measures first how long each job takes without kills."""

    def __init__(self, servers: Servers, tally: Tally, seed: int) -> None:
        self._servers = servers
        self._tally = tally
        self._random = random.Random(seed)
        self._seconds: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def measure(self, scenario: Scenario) -> None:
        """Measure the jobs of a scenario without kills. They must not cause violations."""
        with self._servers.open_sandbox() as sandbox:
            scenario.prepare(sandbox)
            violations = Violations()
            for number, words in enumerate(scenario.list_jobs(sandbox)):
                finished = sandbox.jobs.run(*words)
                violations += finished.check(DONE)
                self._seconds[scenario.name, number] = finished.seconds
            violations += scenario.check(sandbox)
        if violations:
            raise SystemExit(f"{scenario.name}: {violations} without any kill, see the log")

    def kill(self, scenario: Scenario, kills: int) -> None:
        """Kill jobs of a scenario, a few per sandbox, until enough kills have hit a running job."""
        done, sandboxes = 0, 0
        while done < kills and sandboxes < MAX_SANDBOXES * kills / scenario.kills_per_sandbox:
            done += self._kill_in_sandbox(scenario, min(kills - done, scenario.kills_per_sandbox))
            sandboxes += 1

    def _kill_in_sandbox(self, scenario: Scenario, kills: int) -> int:
        """Kill jobs in a new sandbox, repeat each until it succeeds, and check results. Return the number of kills."""
        with self._servers.open_sandbox() as sandbox:
            scenario.prepare(sandbox)
            kills_by_job = self._share_out(scenario, kills)
            done, violations = 0, Violations()
            for number, words in enumerate(scenario.list_jobs(sandbox)):
                made, cost = self._kill_job(sandbox, words, (scenario.name, number), kills_by_job.count(number))
                done += made
                violations += cost
                violations += sandbox.jobs.run_until_done(*words).check(DONE)
            cost = scenario.check(sandbox)
            if cost:
                log.warning("%s: %s", scenario.name, cost)
        self._tally.add(KILL_JOBS, scenario.name, violations + cost, done)
        return done

    def _share_out(self, scenario: Scenario, kills: int) -> Sequence[int]:
        """Choose a job for each kill, with a probability proportional to its duration. Return the jobs' numbers."""
        seconds = {number: taken for (name, number), taken in self._seconds.items() if name == scenario.name}
        with self._lock:
            return self._random.choices(list(seconds), list(seconds.values()), k=kills)

    def _kill_job(
        self, sandbox: Sandbox, words: tuple[str, ...], job: tuple[str, int], kills: int
    ) -> tuple[int, Violations]:
        done, misses, violations = 0, 0, Violations()
        while done < kills and misses < MAX_MISSES:
            with self._lock:
                terminates = self._random.random() < TERMINATE_SHARE
                moment = self._random.uniform(0.05, self._seconds[job])
            number = signal.SIGTERM if terminates else signal.SIGKILL
            finished = sandbox.jobs.run(*words, kill=Kill(moment, number))
            violations += finished.check(DONE, -number, TERMINATED) if finished.was_killed else finished.check(DONE)
            done += finished.was_killed
            if not finished.was_killed:
                # The job was faster than measured, for example because the measurement was its first run.
                self._seconds[job] = min(self._seconds[job], finished.seconds)
                misses += 1
        return done, violations
