"""Numbers, times and sizes as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobs.units import format_duration, format_number, format_share, format_size, format_stored_time, format_time


def test_times_are_in_utc_to_the_minute() -> None:
    assert format_time(datetime(2026, 11, 28, 12, 5, 59, tzinfo=timezone(timedelta(hours=2)))) == "2026-11-28 10:05 UTC"
    assert format_stored_time("2026-11-28T10:05:59Z") == "2026-11-28 10:05 UTC"
    assert format_time(None) == "-"
    assert format_time(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02 00:00 UTC"


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 kB"), (999_999, "1000 kB"), (1_500_000, "1.5 MB"), (688_000_000, "688 MB"), (2_340_000_000, "2.3 GB")],
)
def test_sizes(size_bytes: int, words: str) -> None:
    assert format_size(size_bytes) == words


def test_numbers_shares_and_durations() -> None:
    assert [format_number(number) for number in (None, 3, 3.14, 123.4, 1234567)] == [
        "-",
        "3",
        "3.1",
        "123",
        "1,234,567",
    ]
    assert [format_share(share) for share in (None, 0.5, 0.9999, 1)] == ["-", "50 %", "99 %", "100 %"]
    assert [format_duration(seconds) for seconds in (None, 2.04, 59.6, 90, 5400, 200_000)] == [
        "-",
        "2.0 s",
        "60 s",
        "2 min",
        "2 h",
        "2 days",
    ]
