"""Text for terminals and files that cannot show it all: the nearest plain characters, never an escape."""

from __future__ import annotations

import codecs
import sys
import unicodedata

NEAREST = {
    "−": "-", "–": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "·": ".", "≤": "<=", "≥": ">=", "→": "->",
    "◀": "<", "≈": "~",
    "“": '"', "”": '"', "‘": "'", "’": "'", "Δ": "d", "│": "|", "─": "-", "━": "-", "┃": "|",
}  # fmt: skip
SHADES = dict(zip("░▒▓█▉▊▋▌▍▎▏", ".:######:::", strict=True))
RAISED = dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
ERRORS = "guda.plain"
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def nearest(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what a stream cannot encode becomes the nearest it can, or `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(
        NEAREST.get(c) or SHADES.get(c) or RAISED.get(c) or ("+" if "─" <= c <= "╿" else "?") for c in text
    )
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


def printable(text: object) -> str:
    """The text with control, direction-changing and undecodable characters replaced by U+FFFD."""
    return "".join(
        "\ufffd" if c in _BIDI or unicodedata.category(c) in {"Cc", "Cs"} else c for c in str(text)
    )


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, cut in the middle: the ends of file names tell them apart."""
    if len(text) <= length:
        return text
    if length < 4:
        return text[:length]
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"
