"""Whether a model sees of a query what a person sees of it, by the file's width and height alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guda_cli.data.images import DECODING_ERRORS, extent

CUT, SMALL = (
    "more than half is cut off: the model sees the middle square",
    "enlarged: smaller than the model's",
)
LONGEST = 2.0
"""Sides up to this many times the other are cropped without a word."""


def notes(paths: Iterable[str], size: int) -> dict[str, list[str]]:
    """What should be known of images for a model of `size` pixels a side: the note, and the paths.

    Files that cannot be read are left out: others say what is wrong with them.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        try:
            short, long = sorted(extent(Path(path)))
        except DECODING_ERRORS:
            continue
        if long > LONGEST * short:
            found.setdefault(CUT, []).append(path)
        if short < size:
            found.setdefault(f"{SMALL} {size} x {size}", []).append(path)
    return found
