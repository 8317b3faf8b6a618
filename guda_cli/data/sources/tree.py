"""What folders and archives have in common for the readers above them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Tree(Protocol):
    """A set of files that can be read without unpacking."""

    where: str
    """Path of the folder or archive, for messages."""
    files: dict[str, int]
    """Relative path with `/` -> size in bytes; regular files only, hidden ones left out."""
    notes: list[str]
    """Sentences for the user."""
    max_pixels: int | None
    """Limit on width x height of an image, where it is stricter than usual."""

    def order(self, names: Iterable[str]) -> list[str]:
        """`names` in the order that is quickest to read."""

    def read(self, name: str) -> bytes:
        """The content of one file; DataError when it is damaged."""

    def close(self) -> None:
        """Let go of open files."""
