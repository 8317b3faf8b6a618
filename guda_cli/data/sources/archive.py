"""Tar and zip archives read in place: nothing is unpacked to disk, nothing in them is trusted."""

from __future__ import annotations

import copy
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from guda_cli import git_lfs
from guda_cli.data.sources.archive_bounds import BoundedHeader, Budget, check_directory
from guda_cli.data.sources.names import check_placeholder, composed, hidden, hostile, in_one_form, safe_name
from guda_cli.data.sources.tree import Tree
from guda_cli.data.sources.zip_names import name_of, unsure
from guda_cli.errors import DataError

MAX_MEMBER_BYTES = 256 * 2**20
"""Largest member of an archive, unpacked."""

ARCHIVE_MAX_PIXELS = 89_478_485
"""Largest width x height of an image in an archive: where Pillow warns of a decompression bomb."""

# What the standard library raises on damaged archives; RuntimeError includes NotImplementedError.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    RuntimeError,
    MemoryError,
)


def open_archive(path: Path) -> Tree:
    """The archive at `path`, told by its first bytes: zip, gzipped tar, or tar."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is no file", why="archives are read from files", fix="save it to a file")
    try:
        with path.open("rb") as file:
            magic = file.read(64)
    except OSError as err:
        raise DataError(f"cannot open {path}", why=err.strerror or str(err)) from None
    if git_lfs.is_pointer(magic):
        raise DataError(f"{path} is not there", why=git_lfs.WHY, fix="git lfs pull")
    if magic[:2] == b"PK":
        return ZipTree(path)
    return TarTree(path, packed=magic[:2] == b"\x1f\x8b")


class _Members:
    """Checks each member's name and size, and that no two mean the same file."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen: dict[str, str] = {}
        self._spelled: list[str] = []
        self.files: dict[str, int] = {}

    def add(self, raw: str, size: int) -> str | None:
        """The clean name of a regular file, None when it is hidden; DataError when it is refused."""
        spelled = safe_name(raw, self._where)
        name = composed(spelled)
        if name in self._seen:
            other = self._seen[name]
            why = f"it means the same file as member {other!r}"
            if raw != other and composed(raw) == composed(other):
                why += f" (in another Unicode form: {raw!a} and {other!a})"
            raise hostile(self._where, raw, why)
        self._seen[name] = raw
        if size > MAX_MEMBER_BYTES:
            raise hostile(self._where, raw, f"{size} bytes are more than {MAX_MEMBER_BYTES}")
        check_placeholder(name, self._where)
        if not name or hidden(name):
            return None
        self._spelled.append(spelled)
        self.files[name] = size
        return name

    def checked(self) -> dict[str, int]:
        """The files, after the last one; DataError where two folders differ in Unicode form alone."""
        in_one_form(self._spelled, self._where)
        return self.files


class TarTree:
    """The regular files of a tar archive, plain or gzipped; see `tree.Tree`."""

    max_pixels: int | None = ARCHIVE_MAX_PIXELS

    def __init__(self, path: Path, *, packed: bool) -> None:
        self.where = str(path)
        self.notes: list[str] = []
        self._infos: dict[str, tarfile.TarInfo] = {}
        members = _Members(self.where)
        # The stream is ours, not tarfile's: its end is looked at below.
        self._stream = _stream(path, packed=packed)
        self._budget = Budget(self.where, path.stat().st_size if packed else None)
        try:
            self._tar = tarfile.TarFile(
                fileobj=self._stream,
                mode="r",
                encoding="utf-8",
                errors="surrogateescape",
                tarinfo=BoundedHeader,
            )
            for info in self._tar:
                self._take(info, members)
            _check_end(self._stream, self._tar.offset)
            self.files = members.checked()
        except DataError:
            self.close()
            raise
        except _BROKEN as err:
            self.close()
            raise _damaged(self.where, err) from None

    def _take(self, info: tarfile.TarInfo, members: _Members) -> None:
        info.pax_headers = {}  # a copy a member of all that the archive has in common
        self._budget.spend(info.offset_data + info.size, len(self._tar.pax_headers))
        if info.isdir():
            safe_name(info.name, self.where)
        elif info.isreg():
            name = members.add(info.name, info.size)
            if name is not None:
                self._infos[name] = info
        else:
            kind = "link" if info.issym() or info.islnk() else "device or special file"
            safe_name(info.name, self.where)
            raise hostile(self.where, info.name, f"it is a {kind}")

    def order(self, names: Iterable[str]) -> list[str]:
        """`names` as they follow each other in the archive."""
        return sorted(names, key=lambda name: self._infos[name].offset_data)

    def read(self, name: str) -> bytes:
        """The content of one member; DataError when the archive is damaged there."""
        info = self._infos[name]
        try:
            file = self._tar.extractfile(info)
            data = file.read() if file is not None else b""
        except _BROKEN as err:
            raise _damaged(self.where, err, name) from None
        if len(data) != info.size:
            raise _damaged(self.where, ValueError("it ends too early"), name)
        return data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _stream(path: Path, *, packed: bool) -> IO[bytes]:
    try:
        return cast("IO[bytes]", gzip.GzipFile(path, "rb")) if packed else path.open("rb")
    except OSError as err:
        raise _damaged(str(path), err) from None


def _check_end(stream: IO[bytes], offset: int) -> None:
    """tarfile stops without a word at a cut or a damaged header: a whole archive ends in zeros."""
    stream.seek(offset)
    if stream.read(512) != bytes(512):
        raise EOFError("it is cut short or damaged: the end mark is missing")
    stream.read(1 << 20)  # to the end, where gzip compares its checksum


class ZipTree:
    """The files of a zip archive; see `tree.Tree`."""

    max_pixels: int | None = ARCHIVE_MAX_PIXELS

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.notes: list[str] = []
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._unsure: list[str] = []
        members = _Members(self.where)
        budget = Budget(self.where, None)
        try:
            check_directory(path)
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as err:
            raise _damaged(self.where, err) from None
        try:
            for info in self._zip.infolist():
                budget.spend()
                self._take(info, members)
            self.files = members.checked()
        except DataError:
            self.close()
            raise
        if self._unsure:
            self.notes.append(unsure(self._unsure))

    def _take(self, info: zipfile.ZipInfo, members: _Members) -> None:
        raw, sure = name_of(info)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise hostile(self.where, raw, "it is a link or a special file")
        if raw.endswith(("/", "\\")):
            safe_name(raw, self.where)
            return
        if info.flag_bits & 0x1:
            raise hostile(self.where, raw, "it is encrypted")
        name = members.add(raw, info.file_size)
        if name is not None:
            self._infos[name] = info
            self._unsure += [] if sure else [name]

    def order(self, names: Iterable[str]) -> list[str]:
        """`names` as they follow each other in the archive."""
        return sorted(names, key=lambda name: self._infos[name].header_offset)

    def read(self, name: str) -> bytes:
        """The content of one member; DataError when it is damaged or larger than declared."""
        declared = self._infos[name].file_size
        info = copy.copy(self._infos[name])
        info.file_size = declared + 1  # zipfile stops at this size: one byte more shows an excess
        try:
            with self._zip.open(info) as file:
                data = file.read(declared + 1)
        except _BROKEN as err:
            raise _damaged(self.where, err, name) from None
        if len(data) != declared:
            raise _damaged(self.where, ValueError("its real size is not the declared one"), name)
        return data

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


def _damaged(where: str, err: BaseException, member: str | None = None) -> DataError:
    what = f"{where}: member {member!r} is damaged" if member else f"{where} cannot be read as an archive"
    return DataError(what, why=str(err) or type(err).__name__, fix="fetch or pack the archive again")
