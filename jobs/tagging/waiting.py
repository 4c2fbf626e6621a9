"""What a shard waits for: seconds in which nothing went on but the work of one stage."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Literal, TypeVar

Resource = Literal["bucket", "decode", "forward", "database"]
RESOURCES: tuple[Resource, ...] = ("bucket", "decode", "forward", "database")
Result = TypeVar("Result")


class Waiting:
    """A stopwatch for each resource, read by the thread that moves batches from stage to stage, and by no other.

    Stages that keep up have their batches ready when that thread asks for them; it waits for the slowest.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(RESOURCES, 0.0)

    @contextmanager
    def measure(self, resource: Resource) -> Iterator[None]:
        """Count the time of a block as waiting for a resource."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[resource] += time.perf_counter() - started

    def result_from(self, resource: Resource) -> Callable[["Future[Result]"], Result]:
        """Wait for a future that a resource has to finish."""

        def wait(future: "Future[Result]") -> Result:
            with self.measure(resource):
                return future.result()

        return wait

    def take(self) -> dict[str, float]:
        """The seconds by resource since this was last asked for."""
        taken = {resource: round(seconds, 3) for resource, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(RESOURCES, 0.0)
        return taken
