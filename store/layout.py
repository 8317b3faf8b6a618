"""The folder of a store: its parts, opening it, publishing into it, quarantine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

from guda_cli.store.crashpoints import point
from guda_cli.store.errors import StoreError, StoreFormatError, StoreMissing
from guda_cli.store.files import (
    DamagedFile,
    discard,
    fsync_folder,
    guarded,
    listing,
    load_record,
    read_only_error,
    seal,
    write_bytes,
)
from guda_cli.store.keys import canonical_json
from guda_cli.store.memory import of_a_store

FORMAT = "guda-store"
VERSION = 1
FOLDERS = ("blobs", "actions", "tables", "states", "documents", "leases", "pins", "quarantine", "tmp")
_FORMAT_TEMP = ".format.json."
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Layout:
    """One opened store folder: where things lie, and how a file gets there whole or not at all.

    `notices` holds sentences for the user, `damaged` the paths (inside the store) of all bad files met.
    """

    def __init__(self, root: Path, *, read_only: bool) -> None:
        self.root = root
        self.read_only = read_only
        self.notices: list[str] = []
        self.damaged: list[str] = []
        self.memory = of_a_store()

    def folder(self, name: str) -> Path:
        """One of `FOLDERS`."""
        return self.root / name

    def note(self, sentence: str) -> None:
        """Remember a sentence for the user, once."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def require_writable(self, what: str) -> None:
        """Raise StoreReadOnly when the store was opened read-only; `what` as in "storing a blob"."""
        if self.read_only:
            raise read_only_error(what, self.root, "the folder cannot be written by this user")

    def temp(self, suffix: str = "") -> Path:
        """A new unique path in tmp/, on the file system of the store."""
        folder = self.folder("tmp")
        folder.mkdir(exist_ok=True)
        return folder / f"{os.getpid()}-{os.urandom(8).hex()}{suffix}"

    def temporary(self) -> list[Path]:
        """All temporary files, whoever left them."""
        return [*listing(self.folder("tmp")), *sorted(self.root.glob(f"{_FORMAT_TEMP}*"))]

    def publish_json(self, kind: str, target: Path, body: dict[str, Any], *, exclusive: bool = False) -> bool:
        """Put a sealed record under its final name; with `exclusive`, False when one is there already."""
        self.require_writable(f"writing a {kind}")
        data = seal(body)
        with guarded(f"writing a {kind}", self.root):
            temp = self.temp(".json")
            try:
                write_bytes(temp, data)
                point(f"{kind}-before-rename")
                placed = place(temp, target, exclusive=exclusive)
                point(f"{kind}-after-rename")
                fsync_folder(target.parent)
            finally:
                discard(temp)
        return placed

    def load_json(self, kind: str, path: Path) -> dict[str, Any] | None:
        """The body of a sealed record; None when absent, or damaged (then quarantined and noted)."""
        try:
            return load_record(path)
        except DamagedFile as damage:
            self.quarantine(kind, path, str(damage))
            return None

    def load_lasting(self, kind: str, path: Path) -> dict[str, Any] | None:
        """The same of a record that is not written twice: read once, and not to be changed."""
        try:
            return self.memory.small(path, load_record)
        except DamagedFile as damage:
            self.quarantine(kind, path, str(damage))
            return None

    def quarantine(self, kind: str, path: Path, reason: str) -> None:
        """Move a bad file out of the way and note it; on a read-only store only note it."""
        self.damaged.append(path.relative_to(self.root).as_posix())
        name = path.name[:12] + ("…" if len(path.name) > 12 else "")
        if self.read_only:
            self.note(f"ignored {kind} {name} ({reason}); the store is read-only, so it stays where it is")
            return
        folder = self.folder("quarantine")
        with guarded(f"quarantining a {kind}", self.root):
            folder.mkdir(exist_ok=True)
            # Two processes may find the same damage; one of them moves it.
            with contextlib.suppress(FileNotFoundError):
                path.replace(folder / f"{kind}-{path.name}.{os.urandom(4).hex()}")
        self.note(f"quarantined {kind} {name} ({reason})")


def place(temp: Path, target: Path, *, exclusive: bool) -> bool:
    """Give a finished temporary file its final name; with `exclusive`, only when the name is free."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if exclusive:
        try:
            os.link(temp, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if target.exists():
                return False
        else:
            return True
    temp.replace(target)
    return True


def open_layout(root: Path, *, create: bool) -> Layout:
    """Open or make the folder of a store."""
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root} is not a folder", fix="name a folder with --store")
    if not (root / "format.json").exists():
        _create(root, create=create)
    _check_format(root)
    return Layout(root, read_only=not _make_folders(root))


def _create(root: Path, *, create: bool) -> None:
    if not root.is_dir():
        if not create:
            raise StoreMissing(
                f"there is no store at {root}",
                why="the folder does not exist",
                fix="run the command from the folder you trained in, or name the store with --store",
            )
    elif any(not entry.name.startswith(_FORMAT_TEMP) for entry in listing(root)):
        # Another process may have finished making it between the two looks.
        if (root / "format.json").exists():
            return
        raise StoreError(
            f"{root} is not a store",
            why="the folder holds other files and no format.json",
            fix="name an empty or a new folder with --store",
        )
    elif not create:
        raise StoreMissing(
            f"there is no store at {root}", why="the folder is empty", fix="name it with --store"
        )
    with guarded("making a store", root):
        root.mkdir(parents=True, exist_ok=True)
        temp = root / f"{_FORMAT_TEMP}{os.urandom(8).hex()}"
        try:
            write_bytes(temp, canonical_json({"format": FORMAT, "version": VERSION}) + b"\n")
            point("format-before-rename")
            temp.replace(root / "format.json")
            point("format-after-rename")
            fsync_folder(root)
        finally:
            discard(temp)


def _check_format(root: Path) -> None:
    try:
        found = json.loads((root / "format.json").read_bytes())
        name, version = found["format"], found["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreFormatError(
            f"cannot read {root / 'format.json'}",
            why=f"it does not name a format and a version ({type(error).__name__})",
            fix=f'if this folder is a store, write {{"format": "{FORMAT}", "version": {VERSION}}} into it',
        ) from error
    if name != FORMAT:
        raise StoreFormatError(
            f"{root} is not a guda store", why=f"its format is {name!r}", fix="use another --store"
        )
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise StoreFormatError(
            f"the store {root} has format version {version}, {'newer' if newer else 'older'} than "
            f"version {VERSION}, which this program reads and writes",
            why="it was made by another release of guda",
            fix="upgrade guda" if newer else "use the release that made it, or a new folder with --store",
        )


def _make_folders(root: Path) -> bool:
    """Make what folders are missing; whether the store can be written."""
    if not os.access(root, os.W_OK | os.X_OK):
        return False
    try:
        with guarded("making the folders of the store", root):
            for name in FOLDERS:
                (root / name).mkdir(exist_ok=True)
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _DENIED:
            return False
        raise
    return True
