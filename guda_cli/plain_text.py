"""Text for terminals and files that cannot show it all: the nearest plain characters, never an escape.

Names are others' to choose: a terminal is sent none of their control characters, nor any that turn the
direction of text or cannot be seen; and where text must be UTF-8, what is none in a name is spelled in ASCII.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import shlex
import unicodedata
from collections.abc import Sequence

NEAREST = {
    "−": "-", "–": "-", "—": "-", "…": "...", "±": "+-", "×": "x", "·": ".", "≤": "<=", "≥": ">=", "→": "->",
    "◀": "<", "≈": "~",
    "“": '"', "”": '"', "‘": "'", "’": "'", "Δ": "d", "│": "|", "─": "-", "━": "-", "┃": "|",
}  # fmt: skip
SHADES = dict(zip("░▒▓█▉▊▋▌▍▎▏", ".:######:::", strict=True))
RAISED = dict(zip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789", strict=True))
ERRORS = "guda.plain"
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Of the characters that format text (Cf) those without which names are spelled wrongly: joiners, and signs
# that are seen.
_HARMLESS = frozenset("\u200c\u200d\u06dd\u070f\u08e2\u0890\u0891\U000110bd\U000110cd") | {
    chr(code) for code in range(0x0600, 0x0606)
}
_DOLLAR = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ESCAPED = re.compile(rb"\\(x([0-9a-f]{2})|.)", re.DOTALL)
_MEANT = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPELLING = re.compile(r"\\(?=x5c|x[89a-f][0-9a-f]|ud[89a-f][0-9a-f]{2})")
_SPELLED = re.compile(r"\\(?:x(5c|[89a-f][0-9a-f])|u(d[89a-f][0-9a-f]{2}))")


def nearest(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what a stream cannot encode becomes the nearest it can, or `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(
        NEAREST.get(c) or SHADES.get(c) or RAISED.get(c) or ("+" if "─" <= c <= "╿" else "?") for c in text
    )
    return plain, error.end


def register() -> None:
    """Make `nearest` known to codecs as `ERRORS`."""
    codecs.register_error(ERRORS, nearest)


def unicode(text: str) -> str:
    """`text` as Unicode can hold it: what was no UTF-8 in an argument or a file name as in `spelled`."""
    return spelled(text) if _SURROGATE.search(text) else text


def spelled(name: str) -> str:
    """A name or an argument as UTF-8 can hold it, so that `unspelled` gives it back.

    A byte that is no UTF-8 is ``\\xe9``, half a surrogate pair ``\\ud800``, and a backslash before what would
    read as either ``\\x5c``. Other names stay as they are.
    """
    found = _SPELLING.sub(r"\\x5c", name)
    if not _SURROGATE.search(found):
        return found
    with contextlib.suppress(UnicodeEncodeError):
        # Where names are not taken for UTF-8, the bytes of one that is arrive one by one.
        found = found.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return _SURROGATE.sub(lambda half: _half(half[0]), found)


def unspelled(text: str) -> str:
    """The name that `spelled` made `text` of."""
    return _SPELLED.sub(
        lambda found: "\\" if found[1] == "5c" else chr(int(found[2] or f"dc{found[1]}", 16)), text
    )


def _half(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def printable(text: object) -> str:
    """The text with control, direction-changing, invisible and undecodable characters as one reads them.

    ``\\n``, ``\\x1b``, ``<U+202E>``; bytes that are no UTF-8 as in `spelled`.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_readable, text))


def lines(text: str) -> str:
    """The same of text in lines: line feeds stay."""
    return "\n".join(map(printable, text.split("\n")))


def _readable(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cs":
        return _half(character)
    if kind == "Cc" and character < "\x80":
        return _NAMED.get(character) or f"\\x{ord(character):02x}"
    hidden = kind in {"Cc", "Zl", "Zp"} or (kind == "Cf" and character not in _HARMLESS)
    return f"<U+{ord(character):04X}>" if hidden else character


def quoted(word: str) -> str:
    """A word as a shell reads it, in characters that can be seen: `shlex.quote`, or ``$'caf\\xe9'``."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_in_quotes, word)) + "'"


def joined(words: Sequence[str]) -> str:
    """A command line of these words."""
    return " ".join(map(quoted, words))


def words(command: str) -> list[str]:
    """The words that `joined` made a command line of, as a shell reads them."""
    return shlex.split(_DOLLAR.sub(lambda found: shlex.quote(_unquoted(found[1])), command))


def _unquoted(text: str) -> str:
    data = _ESCAPED.sub(
        lambda found: bytes([int(found[2], 16)]) if found[2] else _MEANT.get(found[1], found[1]),
        text.encode("utf-8", "surrogateescape"),
    )
    return data.decode("utf-8", "surrogateescape")


def _in_quotes(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character in _NAMED or printable(character) == character:
        return _NAMED.get(character, character)
    escape = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", escape))


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, cut in the middle: the ends of file names tell them apart."""
    if len(text) <= length:
        return text
    if length < 4:
        return text[:length]
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"
