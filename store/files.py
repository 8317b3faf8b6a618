"""The few file operations everything else is made of: guarded writes, hashing, sealed JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from guda_cli.store.errors import StoreError, StoreFull, StoreReadOnly
from guda_cli.store.keys import canonical_json, sha256_hex

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# What file systems answer that cannot sync a folder; a failing disk is still said.
_NO_FOLDER_SYNC = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ENOTTY, errno.EISDIR}
    | {errno.EACCES, errno.EPERM}
)
LARGEST_RECORD = 256 << 20
"""Bytes of a record at most: what is larger is none, and is not read."""
_PIECE = 16 << 20  # bytes that are read, hashed and written at once
_WORTH_A_THREAD = 1 << 20  # bytes
_MUCH = 1 << 30  # bytes of a blob from which on it is hashed before it is read into memory

Buffer = bytes | bytearray | memoryview


class DamagedFile(Exception):  # noqa: N818
    """A file of the store that does not say what it should; `args[0]` is the reason."""


def _full_error(what: str, root: Path, error: OSError) -> StoreFull:
    """The StoreFull of a failed write."""
    return StoreFull(
        f"no space left while {what}",
        why=f"the file system of {root} (or your quota on it) is full: {error}; guda store gc shows what is "
        "unused, --store DIR names another folder; then the same command goes on",
        fix="guda store gc",
    )


def read_only_error(what: str, root: Path, reason: str) -> StoreReadOnly:
    """The StoreReadOnly of a refused write."""
    return StoreReadOnly(
        f"the store {root} is read-only: {what} failed",
        why=reason,
        fix="make the folder writable, or use another one with --store",
    )


@contextlib.contextmanager
def guarded(what: str, root: Path) -> Iterator[None]:
    """Turn the OSErrors of writing into errors of the store; `what` as in "while storing a blob"."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full_error(what, root, error) from error
        if error.errno in DENIED:
            raise read_only_error(what, root, str(error)) from error
        raise StoreError(
            f"{what} failed", why=str(error), fix="check the disk and the folder of the store"
        ) from error


def fsync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    fd = os.open(path, os.O_RDWR)  # some systems sync only what was opened for writing
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(path: Path) -> None:
    """Force a folder's entries to the disk, where the system can."""
    if os.name != "posix":
        return
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a new file, whole or not at all, by plain system calls, and sync it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    fd = os.open(path, flags, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fsync(fd)
    except BaseException:
        discard(path)
        raise
    finally:
        os.close(fd)


def write_pieces(path: Path, pieces: Iterable[Buffer]) -> str:
    """Write a new file piece by piece, whole or not at all; its SHA-256, taken while it is written.

    A large piece is hashed in a thread of its own meanwhile: neither hashing nor writing holds Python's lock.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    sha, fd = hashlib.sha256(), os.open(path, flags, 0o644)
    try:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), _PIECE):
                _write_and_hash(fd, view[start : start + _PIECE], sha)
    except BaseException:
        discard(path)
        raise
    finally:
        os.close(fd)
    return sha.hexdigest()


def _write_and_hash(fd: int, view: memoryview, sha: Any) -> None:
    large = len(view) >= _WORTH_A_THREAD
    thread = threading.Thread(target=sha.update, args=(view,)) if large else None
    if thread is None:
        sha.update(view)
    else:
        thread.start()
    try:
        while view:
            view = view[os.write(fd, view) :]
    finally:
        if thread is not None:
            thread.join()


def require_file(path: Path, largest: int | None = None) -> int:
    """Size of the regular file at `path`, perhaps behind a link; DamagedFile where it is something else.

    A device or a pipe may never come to an end. DamagedFile too where it has more than `largest` bytes.
    """
    found = os.stat(path)  # noqa: PTH116 - asked for every record that is read
    if not stat.S_ISREG(found.st_mode):
        raise DamagedFile("it is not a file")
    if largest is not None and found.st_size > largest:
        raise DamagedFile("it is larger than any record")
    return found.st_size


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces; DamagedFile where it is none.

    In large ones: between two of them it has to wait for Python's lock, which others may hold.
    """
    size = require_file(path)
    sha, buffer = hashlib.sha256(), bytearray(min(size, _PIECE) or 1)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            sha.update(memoryview(buffer)[:count])
    return sha.hexdigest()


def read_blob(path: Path, digest: str) -> bytes:
    """The bytes of the file at `path`; DamagedFile where they are not those of `digest`.

    Of a very large one nothing is held in memory before that is known.
    """
    if require_file(path) > _MUCH and hash_file(path) != digest:
        raise DamagedFile("bad checksum")
    data = path.read_bytes()
    if sha256_hex(data) != digest:
        raise DamagedFile("bad checksum")
    return data


def read_whole(path: Path, largest: int | None = LARGEST_RECORD) -> bytes | None:
    """The bytes of a file, or None when there is none; see `require_file` and `unreadable` for the errors."""
    try:
        require_file(path, largest)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DamagedFile | StoreError:
    """What a failed read means: a damaged file, or something that says nothing about the file."""
    if error.errno == errno.EIO:
        return DamagedFile("the disk cannot read it")
    if error.errno == errno.ELOOP:
        return DamagedFile("it is a link to itself")
    return StoreError(f"cannot read {path}", why=str(error), fix="check the permissions of the store's files")


def unlink(path: Path) -> bool:
    """Remove a file; whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except PermissionError:  # some systems do not remove what is marked read-only
        allow(path, 0o644)
        path.unlink()
    return True


def allow(path: Path, mode: int) -> None:
    """Set permissions, where the file system has them: nothing rests on them."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def discard(path: Path) -> None:
    """Remove a temporary file while another error is on its way: never fails."""
    with contextlib.suppress(OSError):
        path.unlink()


def size_of(path: Path) -> int | None:
    """Size of a regular file, or None when there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def listing(folder: Path) -> list[Path]:
    """Entries of a folder in the order of their names; none when the folder is missing."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def left_by_others(name: str) -> bool:
    """Whether desktops and programs that synchronise folders leave files of that name in any folder."""
    lowered = name.lower()
    return name.startswith((".", "~", "@")) or lowered in _LITTER or any(part in lowered for part in _COPIES)


_LITTER = frozenset({"thumbs.db", "desktop.ini", "icon\r", "lost+found"})
_COPIES = ("conflict", "case clash", ".sync-", ".tmp.drivedownload", "(1)")


def seal(body: dict[str, Any]) -> bytes:
    """A JSON record with its own checksum in `sha256`, over the canonical JSON of the rest."""
    return canonical_json({**body, "sha256": sha256_hex(canonical_json(body))}) + b"\n"


def unseal(raw: bytes) -> dict[str, Any]:
    """The body of a sealed record; DamagedFile when a single byte is not as it was written."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamagedFile("it is not readable JSON") from error
    if not isinstance(body, dict) or "sha256" not in body:
        raise DamagedFile("it has no checksum")
    if not _intact(raw, body.pop("sha256")):
        raise DamagedFile("bad checksum")
    return body


def _intact(raw: bytes, checksum: object) -> bool:
    """Whether `raw` is what `seal` made: the rest of it has the checksum that stands in it.

    The entry is cut out of the text: writing the record again to compare would take ten times as long.
    """
    entry = f'"sha256":"{checksum}"'.encode("utf-8", "replace")
    for cut in (entry + b",", b"," + entry, entry):
        before, found, after = raw.partition(cut)
        if found:
            return after.endswith(b"}\n") and sha256_hex(before + after[:-1]) == checksum
    return False


def load_record(path: Path) -> dict[str, Any] | None:
    """The body of the sealed record at `path`; None when there is none, DamagedFile when it is damaged."""
    raw = read_whole(path)
    return None if raw is None else unseal(raw)
