"""Intervals, work and time of an agreement report, as short texts."""

from __future__ import annotations

from guda_cli.report.agreement.content import Interval
from guda_cli.report.pieces.text import UNKNOWN, count, duration, finite, number, significant


def known(interval: Interval | None) -> Interval | None:
    """The interval if its value is finite; ends that are not finite become the value."""
    if interval is None or finite(interval.value) is None:
        return None
    low, high = (interval.value if finite(end) is None else end for end in interval[1:])
    return Interval(interval.value, low, high)


def value_text(interval: Interval | None) -> str:
    """The value with two decimals."""
    found = known(interval)
    return UNKNOWN if found is None else number(found.value, 2)


def half_text(interval: Interval | None) -> str:
    """Half the interval's width in the shortest form, such as `±.03`; empty if there is no value."""
    found = known(interval)
    if found is None:
        return ""
    half = number((found.high - found.low) / 2, 2)
    return f"±{half.removeprefix('0')}"


def range_text(interval: Interval | None) -> str:
    """The interval's ends, such as `0.25 to 0.36`; empty if there is no value."""
    found = known(interval)
    return "" if found is None else f"{number(found.low, 2)} to {number(found.high, 2)}"


def work_text(forwards: float | None) -> str:
    """Forward-equivalents, short: `812`, `12.3 k`, `1.23 M`."""
    found = finite(forwards)
    if found is None or found < 9_999.5:
        return count(found) if found is None or found >= 10 or found == 0 else significant(found, 2)
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if found >= size * 0.9995:
            return f"{significant(max(found / size, 1.0))} {letter}"
    return f"{significant(found / 1e3)} k"


def time_text(seconds: float | None) -> str:
    """Seconds as a person says them, with two digits under one second."""
    found = finite(seconds)
    if found == 0:
        return "0 s"
    return f"{significant(found, 2)} s" if found is not None and 0 < found < 0.995 else duration(found)


def speedup_text(factor: float | None) -> str:
    """A factor, such as `×24`."""
    found = finite(factor)
    return UNKNOWN if found is None else f"×{significant(found, 2)}"
