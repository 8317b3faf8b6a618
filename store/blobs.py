"""Immutable files named by their SHA-256."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from guda_cli.store.ahead import Digests
from guda_cli.store.crashpoints import point
from guda_cli.store.errors import CorruptBlob, MissingBlob, StoreError
from guda_cli.store.files import (
    DamagedFile,
    allow,
    discard,
    fsync_file,
    fsync_folder,
    guarded,
    hash_file,
    left_by_others,
    listing,
    read_blob,
    size_of,
    unreadable,
    write_bytes,
    write_pieces,
)
from guda_cli.store.keys import check_digest, is_digest, sha256_hex
from guda_cli.store.layout import Layout

if TYPE_CHECKING:
    from guda_cli.store.files import Buffer

T = TypeVar("T")
_WORTH_A_THREAD = 1 << 20  # bytes of a file from which on it is hashed in one


class Blobs:
    """The blobs of a store, at blobs/sha256/ab/<digest>."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.folder("blobs") / "sha256"
        self._digests = Digests(hash_file)
        self._synced: set[str] = set()  # whose entries this process has seen to be on the disk

    def address(self, digest: str) -> Path:
        """Where a blob lies, or would lie."""
        return self._folder / check_digest(digest)[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether a file of that name is there; its content is not looked at."""
        return os.path.isfile(f"{self._folder}/{check_digest(digest)[:2]}/{digest}")  # noqa: PTH113 - asked often

    def size(self, digest: str) -> int:
        """Size in bytes; MissingBlob when absent."""
        size = size_of(self.address(digest))
        if size is None:
            raise MissingBlob(digest)
        return size

    def all(self) -> Iterator[tuple[str, Path]]:
        """Every blob, in the order of the digests."""
        for folder in listing(self._folder):
            for path in listing(folder):
                if is_digest(path.name):
                    yield path.name, path

    def strangers(self) -> list[Path]:
        """Files among the blobs that are not named like one, nor left there by a desktop."""
        return [
            path
            for folder in listing(self._folder)
            if not left_by_others(folder.name)
            for path in (listing(folder) if folder.is_dir() else [folder])
            if not (is_digest(path.name) and path.name[:2] == folder.name) and not left_by_others(path.name)
        ]

    def path(self, digest: str) -> Path:
        """The file of a blob; hashed first, once a process, and quarantined if it does not fit its name."""
        path = self.address(digest)
        try:
            actual = self._layout.memory.slight(path, hash_file, lambda: self._digests.of(path))
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlob(digest) from None
        except DamagedFile as damage:
            raise self._corrupt(digest, str(damage)) from None
        except OSError as error:
            raise self._unreadable(digest, error) from error
        if actual != digest:
            raise self._corrupt(digest, "bad checksum")
        return path

    def check(self, digest: str) -> None:
        """Hash the file of a blob whatever is known of it; errors as `path`."""
        path = self.address(digest)
        self._layout.memory.drop(path)
        self._digests.drop(path)
        self.path(digest)

    def begin_check(self, digest: str) -> None:
        """Have the file of a blob hashed beside what this thread does until it asks for its `path`."""
        path = self.address(digest)
        if (size_of(path) or 0) >= _WORTH_A_THREAD and not self._layout.memory.knows(path, hash_file):
            self._digests.begin(path)

    def opened(self, digest: str, make: Callable[[Path], T]) -> T:
        """What `make` makes of a blob's file by mapping it, checked; it may be kept: not to be changed."""
        return self._layout.memory.slight(self.path(digest), make)

    def read(self, digest: str) -> bytes:
        """The bytes of a blob, checked."""
        return self.parsed(digest, bytes)

    def parsed(self, digest: str, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of the bytes of a blob, checked; not to be changed, for it may be kept."""
        return self._layout.memory.parsed(self.address(digest), parse, lambda: self._read(digest))

    def _read(self, digest: str) -> bytes:
        try:
            return read_blob(self.address(digest), digest)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingBlob(digest) from None
        except DamagedFile as damage:
            raise self._corrupt(digest, str(damage)) from None
        except OSError as error:
            raise self._unreadable(digest, error) from error

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; their digest."""
        self._layout.require_writable("storing a blob")
        digest = sha256_hex(data)
        self._layout.hold(digest)
        with guarded("storing a blob", self._layout.root):
            if self._reuse(digest, len(data)):
                return digest
            temp = self._layout.temp()
            try:
                point("before-write")
                write_bytes(temp, data, sync=False)
                self._adopt(temp, digest)
            finally:
                discard(temp)
        return digest

    def put_pieces(self, pieces: Iterable[Buffer]) -> str:
        """Store bytes that come piece by piece, hashed as they are written; their digest."""
        self._layout.require_writable("storing a blob")
        with guarded("storing a blob", self._layout.root):
            temp = self._layout.temp()
            try:
                point("before-write")
                digest = write_pieces(temp, pieces)
                self._layout.hold(digest)
                self._adopt(temp, digest)
            finally:
                discard(temp)
        return digest

    def put_written(self, write: Callable[[Path], None]) -> str:
        """Store what `write` writes to a new file, which may be larger than memory; its digest."""
        self._layout.require_writable("storing a blob")
        with guarded("storing a blob", self._layout.root):
            temp = self._layout.temp()
            try:
                point("before-write")
                write(temp)
                digest = hash_file(temp)
                self._layout.hold(digest)
                self._adopt(temp, digest)
            finally:
                discard(temp)
        return digest

    def touch(self, digest: str) -> bool:
        """Make a blob young again, so that a garbage collection leaves it alone; whether it is there."""
        with self._layout.using():
            with contextlib.suppress(OSError):
                os.utime(self.address(digest))
            return self.has(digest)

    def _reuse(self, digest: str, size: int) -> bool:
        """Whether the blob is there already, as far as its size tells."""
        if size_of(self.address(digest)) != size or not self.touch(digest):
            return False
        # Whoever put it there may not have come to this yet, and a record is to name it.
        if digest not in self._synced:
            fsync_folder(self._layout.make(self.address(digest).parent))
            self._synced.add(digest)
        return True

    def _adopt(self, temp: Path, digest: str) -> None:
        """Sync a temporary file and give it its final name."""
        point("after-write")
        if self._reuse(digest, temp.stat().st_size):
            return
        target = self.address(digest)
        fsync_file(temp)
        point("after-fsync")
        allow(temp, 0o444)
        self._layout.make(target.parent)
        try:
            temp.replace(target)
        except OSError:
            if size_of(target) is not None or not os.path.lexists(target):
                raise
            self._layout.quarantine("blob", target, "it is not a file")
            temp.replace(target)
        point("after-rename")
        fsync_folder(target.parent)
        self._synced.add(digest)

    def _unreadable(self, digest: str, error: OSError) -> StoreError:
        meaning = unreadable(self.address(digest), error)
        return self._corrupt(digest, str(meaning)) if isinstance(meaning, DamagedFile) else meaning

    def _corrupt(self, digest: str, reason: str) -> CorruptBlob:
        self._layout.quarantine("blob", self.address(digest), reason)
        moved = "left in place" if self._layout.read_only else "moved to quarantine/"
        return CorruptBlob(
            digest, why=f"{reason}; the file was {moved}", fix="run the step that makes it again"
        )
