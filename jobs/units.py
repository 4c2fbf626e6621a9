"""Format times, numbers, shares, durations and sizes, for the pages and the command line."""

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
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f} {unit}"
    return f"{size_bytes / 1e3:.1f} kB"


def format_words(name: str) -> str:
    """Format an identifier as words."""
    return name.replace("_", " ")
