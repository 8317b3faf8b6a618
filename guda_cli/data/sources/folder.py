"""A folder of files, walked without leaving it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from guda_cli.data.sources.hub_cache import blobs_of
from guda_cli.data.sources.names import check_placeholder, check_text, hidden, hostile, in_one_form
from guda_cli.data.versions import IMAGE_SUFFIXES
from guda_cli.errors import DataError
from guda_cli.phrases import human_bytes, plural

MAX_BYTES = 1 << 30
"""Largest file that is read, whatever it is."""


class FolderTree:
    """The regular files below a folder, hidden ones left out; see `tree.Tree`."""

    max_pixels: int | None = None

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.notes: list[str] = []
        self._path = path
        sizes = {name: info.st_size for name, info in walk(path, self.notes)}
        self._spelled = in_one_form(sizes, self.where)
        self.files = {name: sizes[spelled] for name, spelled in self._spelled.items()}

    def order(self, names: Iterable[str]) -> list[str]:
        """`names`, sorted."""
        return sorted(names)

    def read(self, name: str) -> bytes:
        """The content of one file; DataError when it cannot be read, or is too large to be."""
        if self.files[name] > MAX_BYTES:
            size = human_bytes(self.files[name])
            raise hostile(self.where, name, f"it has {size}, more than {human_bytes(MAX_BYTES)}")
        path = self._path / self._spelled[name]
        try:
            return path.read_bytes()
        except OSError as err:
            raise DataError(f"cannot read {path}", why=err.strerror or str(err)) from None

    def close(self) -> None:
        """Nothing to close."""


def walk(path: Path, notes: list[str] | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below `path` with its path relative to it as the disk has it, sorted by that path.

    Links are followed as long as they stay inside, or lead from a snapshot of a hub's cache to its blobs; one
    that leads elsewhere is a DataError. A link to a
    folder it lies in is passed over with a note, as are pipes and devices.
    """
    try:
        base = Path(os.path.realpath(path, strict=True))
        found: list[tuple[str, os.stat_result]] = []
        skipped = _visit(base, base, "", (str(base),), found)
    except OSError as err:
        what = err.filename or path
        raise DataError(f"cannot read the folder {what}", why=err.strerror or str(err)) from None
    if notes is not None and skipped:
        notes.append(plural(skipped, "link or device was", "links or devices were") + " passed over")
    yield from sorted(found)


def _visit(
    base: Path, folder: Path, prefix: str, chain: tuple[str, ...], found: list[tuple[str, os.stat_result]]
) -> int:
    """Add the files of `folder` to `found`; returns how many entries were passed over."""
    skipped = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            check_placeholder(name, str(base))
            if hidden(entry.name):
                continue
            check_text(name, str(base))
            if entry.is_symlink() and not _stays_inside(base, entry, name):
                skipped += 1
                continue
            info = entry.stat()
            if stat.S_ISDIR(info.st_mode):
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real in chain or len(chain) > 64:
                    skipped += 1
                    continue
                skipped += _visit(base, Path(entry.path), name + "/", (*chain, real), found)
            elif stat.S_ISREG(info.st_mode):
                found.append((name, info))
            else:
                skipped += 1
    return skipped


def _stays_inside(base: Path, entry: os.DirEntry[str], name: str) -> bool:
    """Whether a link can be followed; DataError when it leads outside or an image link is broken."""
    real = Path(os.path.realpath(entry.path))
    blobs = None if real.is_relative_to(base) else blobs_of(base)
    if not real.is_relative_to(base) and not (blobs and real.is_relative_to(blobs)):
        raise hostile(str(base), name, f"it is a link that leads outside the folder, to {real}")
    try:
        entry.stat()
    except OSError:  # broken, or a link to itself
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            raise hostile(str(base), name, "it is a link that leads nowhere") from None
        return False
    return True
