"""Text for terminals and files that cannot show it all: the nearest plain characters, never an escape."""

from __future__ import annotations

import codecs
import sys

NEAREST = {
    "−": "-", "–": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "·": ".", "≤": "<=", "≥": ">=", "→": "->",
    "“": '"', "”": '"', "‘": "'", "’": "'", "Δ": "d", "│": "|", "─": "-", "━": "-", "┃": "|",
}  # fmt: skip
SHADES = dict(zip("░▒▓█▉▊▋▌▍▎▏", ".:######:::", strict=True))
ERRORS = "guda.plain"


def nearest(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what a stream cannot encode becomes the nearest it can, or `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(NEAREST.get(c) or SHADES.get(c) or ("+" if "─" <= c <= "╿" else "?") for c in text)
    return plain, error.end


def use() -> None:
    """Let standard output and error write whatever text they are given."""
    codecs.register_error(ERRORS, nearest)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def unicode(text: str) -> str:
    """`text` as Unicode can hold it: what was no UTF-8 in an argument or a file name is U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
