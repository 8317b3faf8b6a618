"""Files that Git LFS has not fetched: a few lines of text in a large file's place."""

from __future__ import annotations

_BEGINS = b"version https://git-lfs.github.com/spec/"
WHY = "it is a pointer of Git LFS in the place of the file, which was not fetched (git lfs pull)"


def is_pointer(data: bytes) -> bool:
    """Whether a file that begins with `data` is one."""
    return data.startswith(_BEGINS)
