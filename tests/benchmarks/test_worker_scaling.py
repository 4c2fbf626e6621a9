"""The benchmark of workers on one database names the rate up to which they scale, and what limits them."""

from collections import Counter

from benchmarks.scenarios.worker_scaling import Measurement, describe_limit, make_rows


def measure(workers: int, rate: float, busy: float, waits: dict[str, int] | None = None) -> Measurement:
    return Measurement(workers, rate, {"workers": busy / 2, "Postgres": busy / 2}, Counter(waits or {}))


def test_efficiency_compares_with_single_workers() -> None:
    rows = make_rows([measure(1, 50, 0.2), measure(4, 190, 0.8)])
    assert [row["efficiency"] for row in rows] == [1, 0.95]


def test_the_limit_is_the_cores_if_they_are_busy() -> None:
    text = describe_limit([measure(1, 50, 0.2), measure(2, 96, 0.4), measure(4, 120, 1.9)], cores=2)
    assert "up to 2 workers, 96 images per second" in text
    assert "all 2 cores are busy: workers 0.9, Postgres 0.9" in text


def test_the_limit_is_a_wait_if_cores_are_idle() -> None:
    waits = {"Lock relation": 3, "IO WalSync": 1}
    text = describe_limit([measure(1, 50, 0.2), measure(4, 120, 0.5, waits)], cores=2)
    assert "sessions wait: Lock relation 75.0 %, IO WalSync 25.0 %" in text


def test_without_a_limit_none_is_named() -> None:
    assert "No limit was reached" in describe_limit([measure(1, 50, 0.2)], cores=2)
