"""Format times, numbers, shares, durations and sizes, for the pages, the command line and the gates."""

import math
from datetime import UTC, datetime


def format_time(moment: datetime | None) -> str:
    """Format a time to the minute, in UTC as in Airflow's logs."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else "-"


def format_stored_time(stored: str) -> str:
    """Format a time in ISO 8601, as records of the catalog store it."""
    return format_time(datetime.fromisoformat(stored))


def format_share(share: float | None) -> str:
    """Format a share from 0 to 1 as a whole percentage. Only a share of exactly 1 becomes 100 %."""
    if share is None:
        return "-"
    return f"{min(round(100 * share), 99) if share < 1 else 100} %"


def format_number(number: float | None) -> str:
    """Format a number with thousands separators, and with one decimal if it is small and not an integer."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


def format_duration(seconds: float | None) -> str:
    """Format seconds in a readable unit."""
    if seconds is None:
        return "-"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def format_size(size_bytes: int) -> str:
    """Format bytes as kB, MB or GB."""
    units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
    unit, length = next((one for one in units if size_bytes >= one[1]), units[-1])
    return f"{size_bytes / length:.1f}".removesuffix(".0") + f" {unit}"


def format_words(name: str) -> str:
    """Format an identifier as words."""
    return name.replace("_", " ")


def format_percent(share: float, *, sign: bool = False) -> str:
    """Format a share from 0 to 1 with one decimal, or a difference of shares with its sign."""
    return f"{100 * share:{'+' if sign else ''}.1f} %"


def format_lower_bound(share: float, *, sign: bool = False) -> str:
    """Format a lower bound of a share, rounded down. Rounding up would overstate it."""
    # A tiny amount keeps numbers such as 0.285, whose nearest float is smaller.
    return format_percent(math.floor(1000 * share + 1e-9) / 1000, sign=sign)


def format_days(days: float) -> str:
    """Format days as a whole number, or with one decimal below ten. Clocks that differ can make it negative."""
    return f"{days:.0f} days" if days >= 10 or days == int(days) else f"{max(0.0, days):.1f} days"


def format_seconds(milliseconds: float) -> str:
    """Format milliseconds as seconds with two significant digits, and at most three decimals."""
    seconds = milliseconds / 1000
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{round(float(f'{seconds:.2g}'), 3):g} s"


def format_speed(images_per_second: float) -> str:
    """Format a throughput."""
    return f"{images_per_second:,.0f} images/s"


def format_megabytes(size_bytes: float) -> str:
    """Format bytes as MB."""
    return f"{size_bytes / 1e6:,.0f} MB"


def format_figure(value: float | None) -> str:
    """Format a figure of a gate briefly. Return a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.0f} million"
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
