"""What a browser says of a picture, made harmless: its name, its prompt."""

from __future__ import annotations

from urllib.parse import unquote

LONGEST = 100  # characters
NAMELESS = "picture"


def file_name(said: str) -> str:
    """A name for a file in a folder of its own, from what a browser says (percent-encoded): no path, no mark.

    Letters, digits and plain signs of the last part stay; it never begins with a dot or a dash.
    """
    last = unquote(said, errors="replace").replace("\\", "/").rpartition("/")[2]
    kept = "".join(c if c.isalnum() or c in " ._-()+" else "_" for c in last)
    name = kept[-LONGEST:].strip().lstrip(".-_ ")
    while len(name.encode("utf-8", "replace")) > 2 * LONGEST:
        name = name[1:]
    return name or NAMELESS


def plain_text(said: str) -> str:
    """A prompt or class as a browser says it (percent-encoded): one line of text, of a bounded length."""
    return " ".join("".join(c if c.isprintable() else " " for c in unquote(said)).split())[: 10 * LONGEST]
