"""Numbers and names as a reader should see them: digits that mean something, no control characters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from guda_cli.phrases import MINUS as MINUS
from guda_cli.phrases import power_of_ten, short_number
from guda_cli.plain_text import printable as printable
from guda_cli.plain_text import shorten as shorten

UNKNOWN = "\u2013"


def finite(value: object) -> float | None:
    """The value as a float, or None if it is missing or not finite."""
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


class Scale(NamedTuple):
    """How the numbers of one table are shown: in units of ``10**exponent``, with so many decimals."""

    exponent: int
    places: int

    @property
    def label(self) -> str:
        """What a column head has to say about it, such as ``×10⁻³``; empty for plain units."""
        return power_of_ten(self.exponent) if self.exponent else ""

    def show(self, value: float | None, *, sign: bool = False) -> str:
        """One value."""
        known = finite(value)
        return number(None if known is None else known / 10.0**self.exponent, self.places, sign=sign)

    def pair(self, value: float | None, error: float | None) -> str:
        """A signed value with its standard error, if that is known."""
        shown = self.show(value, sign=True)
        return shown if finite(error) is None else f"{shown} ± {self.show(error)}"


def scale_for(values: Iterable[float | None], errors: Iterable[float | None] = ()) -> Scale:
    """A scale that shows three digits of the largest value and one of the median error."""
    largest = max((abs(v) for v in map(finite, values) if v), default=0.0)
    spread = sorted(abs(e) for e in map(finite, errors) if e)
    if largest == 0.0:
        return Scale(0, 2)
    size = max(math.floor(math.log10(largest)), -300)
    exponent = 0 if -2 <= size < 4 else 3 * (size // 3)
    places = 2 - (size - exponent)
    if spread:
        places = max(places, exponent - math.floor(math.log10(spread[len(spread) // 2])))
    return Scale(exponent, min(max(places, 0), 4))


def number(value: float | None, places: int, *, sign: bool = False) -> str:
    """A number with ``places`` decimals, a real minus sign, and a dash for nothing."""
    known = finite(value)
    if known is None:
        return UNKNOWN
    plus = "+" if sign else ""
    shown = f"{known:{plus},.{places}f}"
    if not any(c in "123456789" for c in shown):
        shown = shown.lstrip("+-")
    return shown.replace("-", MINUS)


def z_text(value: float | None) -> str:
    """A z-value: one decimal while that means something, never wide."""
    known = finite(value)
    if known is None:
        return UNKNOWN
    if abs(known) >= 9999:
        return f"{'>' if known > 0 else '<' + MINUS}9,999"
    return number(known, 1 if abs(known) < 100 else 0)


def significant(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with so many significant digits, in powers of ten only where it would be long."""
    known = finite(value)
    if known is None:
        return UNKNOWN
    return "0" if known == 0 else short_number(known, digits, sign=sign)


def change(before: float | None, after: float | None) -> str:
    """The relative change in percent."""
    a, b = finite(before), finite(after)
    if a is None or b is None or a == 0:
        return UNKNOWN
    return f"{100 * (b - a) / abs(a):+.1f} %".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    known = finite(seconds)
    if known is None:
        return UNKNOWN
    if known < 99.5:
        return f"{known:.2f} s" if known < 9.995 else f"{known:.0f} s"
    minutes, rest = divmod(round(known), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: float | None) -> str:
    """A whole number with separators."""
    known = finite(value)
    return UNKNOWN if known is None else f"{known:,.0f}"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested JSON as dotted keys and printable values; short lists stay on one line."""
    if isinstance(value, Mapping):
        return [row for k, v in value.items() for row in flatten(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, (Mapping, list, tuple)) for v in value):
            return [row for i, v in enumerate(value) for row in flatten(v, f"{prefix}[{i}]")]
        return [(prefix, ", ".join(printable(v) for v in value))]
    return [(prefix, UNKNOWN if value is None else printable(value))]
