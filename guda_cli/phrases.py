"""Lists, counts, sizes and times as a person says them."""

from __future__ import annotations

import math
import re


def few(names: list[str], most: int = 5) -> str:
    """The first `most` names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, one: str, many: str) -> str:
    """`count` with the fitting noun phrase."""
    return f"{count} {one if count == 1 else many}"


MINUS = "\u2212"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_EXPONENT = re.compile(r"(?<![\w.])([+-]?)(\d+(?:\.\d+)?)e([+-]?\d+)\b")


def power_of_ten(exponent: int) -> str:
    """`×10⁻³`."""
    return f"×10{str(exponent).translate(_RAISED)}"


def short_number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """So many digits that mean something, without `e+`: 0.0123, 12.3, −1,234; powers of ten beyond a size."""
    plus = "+" if sign else ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = math.floor(math.log10(float(f"{abs(value):.{digits - 1}e}")))
    if not -5 <= size < 15:
        return f"{value / 10.0**size:{plus}.{digits - 1}f}{power_of_ten(size)}".replace("-", MINUS)
    return f"{value:{plus},.{max(digits - 1 - size, 0)}f}".replace("-", MINUS)


def without_exponents(text: str) -> str:
    """A sentence with numbers such as `-7.56e-04` as a person writes them."""

    def written(found: re.Match[str]) -> str:
        mantissa, sign = found[2], found[1] == "+"
        digits = len(mantissa.replace(".", "").lstrip("0")) or 1
        return short_number(float(found[0]), digits, sign=sign)

    return _EXPONENT.sub(written, text)


def human_bytes(n: float) -> str:
    """1536 -> '1.5 KB' (powers of 1024)."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TB"


def human_seconds(seconds: float) -> str:
    """75 -> '1:15'; under ten seconds with a decimal: '3.2 s'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
