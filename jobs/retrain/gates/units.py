"""Format figures of gates in units for people, such as "688 MB", "0.3 s" and "86.8 %"."""

import math

MISSING = "-"


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


def format_number(value: float | None) -> str:
    """Format a number briefly. Return a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.0f} million"
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
