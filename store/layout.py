"""The folder of a store: its parts, opening it, publishing into it, quarantine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guda_cli.store.crashpoints import point
from guda_cli.store.errors import StoreError, StoreFormatError, StoreMissing
from guda_cli.store.files import (
    DENIED,
    DamagedFile,
    discard,
    fsync_folder,
    guarded,
    listing,
    load_record,
    read_only_error,
    read_whole,
    seal,
    write_bytes,
)
from guda_cli.store.keys import canonical_json
from guda_cli.store.lock import locked
from guda_cli.store.memory import of_a_store

if TYPE_CHECKING:
    from guda_cli.store.held import Held

FORMAT = "guda-store"
VERSION = 1
FOLDERS = ("blobs", "actions", "tables", "states", "documents", "leases", "pins", "quarantine", "tmp")
_FORMAT_TEMP = ".format.json."
# A link that fails so would fail as a rename, too; whatever else a file system says means: no links here.
_NO_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT})
_CLAIM_SECONDS = 10.0  # after which a claim is that of a process that was killed
_SWEEP_LOCK = ".sweep-lock"  # in leases/


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
        self.held: Held | None = None
        self._made: set[Path] = set()
        self._sweeping = False

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

    def hold(self, name: str) -> None:
        """Let garbage collection know, where this process tells it, that it uses an action, blob or table."""
        if self.held is not None and name not in self.held:
            with self.using():
                self.held.name(name)

    def using(self) -> AbstractContextManager[None]:
        """While something is looked at and begun to be used: garbage collection removes nothing meanwhile."""
        if self._sweeping:
            return contextlib.nullcontext()
        return locked(self.folder("leases") / _SWEEP_LOCK, exclusive=False)

    @contextlib.contextmanager
    def sweeping(self) -> Iterator[None]:
        """While garbage collection looks at something and removes it: nobody begins to use it meanwhile."""
        with locked(self.folder("leases") / _SWEEP_LOCK, exclusive=True):
            self._sweeping = True
            try:
                yield
            finally:
                self._sweeping = False

    def make(self, folder: Path) -> Path:
        """A folder of the store with those above it, so that a power cut does not take them.

        Whoever made it, its entry is synced once by every process: the maker may not have come to that yet.
        """
        if folder in self._made and folder.is_dir():
            return folder
        if folder.parent == self.root:
            folder.mkdir(exist_ok=True)
            return folder
        own = [each for each in (folder, *folder.parents) if self.root in each.parents]
        for each in reversed(own[:-1]):  # those just below the root were synced when the store was made
            if each not in self._made or not each.is_dir():
                each.mkdir(exist_ok=True)
                fsync_folder(each.parent)
                self._made.add(each)
        return folder

    def temp(self, suffix: str = "") -> Path:
        """A new unique path in tmp/, on the file system of the store."""
        folder = self.folder("tmp")
        folder.mkdir(exist_ok=True)
        return folder / f"{os.getpid()}-{os.urandom(8).hex()}{suffix}"

    def temporary(self) -> list[Path]:
        """All temporary files, whoever left them."""
        claims = [*self.folder("actions").glob(".*.claim"), *self.folder("leases").glob(".*.claim")]
        return [*listing(self.folder("tmp")), *sorted(self.root.glob(f"{_FORMAT_TEMP}*")), *sorted(claims)]

    def publish_json(self, kind: str, target: Path, body: dict[str, Any], *, exclusive: bool = False) -> bool:
        """Put a sealed record under its final name; with `exclusive`, False when one is there already."""
        self.require_writable(f"writing a {kind}")
        data = seal(body)
        with guarded(f"writing a {kind}", self.root):
            temp = self.temp(".json")
            try:
                write_bytes(temp, data)
                self.make(target.parent)
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
    if not exclusive:
        temp.replace(target)
        return True
    try:
        os.link(temp, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise
        return _place_by_claim(temp, target)
    return True


def _place_by_claim(temp: Path, target: Path) -> bool:
    """The same where there are no links: of several at once, the one that makes a claim looks and renames."""
    claim = target.with_name(f".{target.name}.claim")
    while True:
        if os.path.lexists(target):
            return False
        try:
            os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - claim.stat().st_mtime > _CLAIM_SECONDS:
                    discard(claim)
            time.sleep(0.005)
    try:
        if os.path.lexists(target):
            return False
        temp.replace(target)
        return True
    finally:
        discard(claim)


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
    elif any(not _no_content(entry.name) for entry in listing(root)):
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
        _make_root(root)
        temp = root / f"{_FORMAT_TEMP}{os.urandom(8).hex()}"
        try:
            write_bytes(temp, canonical_json({"format": FORMAT, "version": VERSION}) + b"\n")
            point("format-before-rename")
            temp.replace(root / "format.json")
            point("format-after-rename")
            fsync_folder(root)
        finally:
            discard(temp)


def _no_content(name: str) -> bool:
    """Whether a folder with such a file is as good as empty: a format file in the making, or litter."""
    return name.startswith((_FORMAT_TEMP, "._")) or name.lower() in _OF_DESKTOPS


_OF_DESKTOPS = frozenset({".ds_store", ".localized", "thumbs.db", "desktop.ini", ".stfolder", "@eadir"})


def _make_root(root: Path) -> None:
    """Make the folder of a store and those above it that are missing, and sync their entries."""
    missing = [each for each in (root, *root.parents) if not each.is_dir()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        fsync_folder(each.parent)


def _check_format(root: Path) -> None:
    try:
        found = json.loads(read_whole(root / "format.json", 1 << 16) or b"")
        name, version = found["format"], found["version"]
    except (DamagedFile, StoreError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
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
    """Make what folders are missing; whether the store can be written, in each of them."""
    if not _writable(root):
        return False
    missing = [name for name in FOLDERS if not (root / name).is_dir()]
    try:
        with guarded("making the folders of the store", root):
            for name in missing:
                (root / name).mkdir(exist_ok=True)
            if missing:
                fsync_folder(root)
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in DENIED:
            return False
        raise
    return all(_writable(f"{root}/{name}") for name in FOLDERS)


def _writable(folder: Path | str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
