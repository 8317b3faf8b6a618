"""Numbers as people type them: ASCII digits, finite, of bearable length. Python takes much else for one."""

from __future__ import annotations

import math

DIGITS = 18  # of a whole number: what 64 bits hold
CHARACTERS = 400  # of any number: the largest has 309 digits


def whole(text: str) -> int | None:
    """The whole number from 0 on that `text` is in ASCII digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= DIGITS else None


def finite(text: str) -> float | None:
    """The number that `text` is; None for anything else, such as nan, infinities, other scripts' digits."""
    if not text.isascii() or "_" in text or len(text) > CHARACTERS:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
