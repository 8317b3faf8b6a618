"""What listing an archive may cost, before anything of it is unpacked."""

from __future__ import annotations

import struct
import tarfile
import time
from pathlib import Path
from typing import Self

from guda_cli.errors import DataError
from guda_cli.phrases import human_bytes

MAX_MEMBERS = 500_000
MAX_HEADER = 64 << 10
"""Bytes of a tar's long name, or of its extended header (attributes of a file)."""

MAX_UNPACKED = 2 << 30
"""Bytes that a gzipped tar may unpack to whatever its own size; larger ones up to MAX_RATIO times that."""
MAX_RATIO = 20

MAX_DIRECTORY = 128 << 20
"""Bytes of a zip's list of members; of half a million even with very long names."""

MAX_COMMON = 100
"""Attributes that a tar has for all of its members: each member's header gets a copy."""

# Seconds of CPU that listing may take beyond so many a member and a byte unpacked, which are ample.
_SECONDS, _A_MEMBER, _A_BYTE = 8.0, 100e-6, 10e-9

_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_END, _LOCATOR, _END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"


class BoundedHeader(tarfile.TarInfo):
    """A tar header; long ones of a kind that tarfile reads whole before anybody sees it are refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See `tarfile.TarInfo`; DataError for a long name or extended header that is too long."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and info.size > MAX_HEADER:
            what = "a name" if info.type in _EXTENDED[:2] else "an extended header"
            raise DataError(
                f"a tar archive is refused: it has {what} of {info.size:,} bytes",
                why=f"more than {MAX_HEADER:,} are no list of attributes, but made to fill memory",
                fix="pack the images again",
            )
        return info


class Budget:
    """Counts an archive's members and what they unpack to; DataError beyond what listing may cost."""

    def __init__(self, where: str, packed: int | None) -> None:
        """`packed` is the size of a gzipped archive, None for others: they are as large as they are."""
        self._where, self._members, self._began = where, 0, time.thread_time()
        self._most = None if packed is None else max(MAX_UNPACKED, MAX_RATIO * packed)

    def spend(self, end: int = 0, common: int = 0) -> None:
        """One more member, whose content ends at byte `end` of the unpacked archive.

        `common` is the number of attributes that a tar has for all members.
        """
        self._members += 1
        if common > MAX_COMMON or self._takes_long(end):
            raise DataError(
                f"{self._where} is refused: its headers are made to cost time",
                why=f"the first {self._members:,} have far more attributes than files have",
                fix="pack the images again",
            )
        if self._members > MAX_MEMBERS:
            raise DataError(
                f"{self._where} has more than {MAX_MEMBERS:,} members", fix="unpack it, and name the folder"
            )
        if self._most is not None and end > self._most:
            raise DataError(
                f"{self._where} unpacks to more than {human_bytes(self._most)}",
                why=f"a gzipped archive may hold {human_bytes(MAX_UNPACKED)}, or {MAX_RATIO} times its size",
                fix="unpack it, and name the folder",
            )

    def _takes_long(self, unpacked: int) -> bool:
        used = time.thread_time() - self._began
        return used > _SECONDS + self._members * _A_MEMBER + unpacked * _A_BYTE


def check_directory(path: Path) -> None:
    """DataError where the list of members at a zip's end is longer than is read, as its end record says."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 100))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 16:
            return  # zipfile says what is wrong with it
        (length,) = struct.unpack_from("<I", tail, at + 12)
        locator = tail.rfind(_LOCATOR, 0, at)
        if length == 0xFFFFFFFF and locator >= 0 and len(tail) >= locator + 16:
            file.seek(min(size, struct.unpack_from("<Q", tail, locator + 8)[0]))
            record = file.read(56)
            if record.startswith(_END64) and len(record) == 56:
                (length,) = struct.unpack_from("<Q", record, 40)
    if length > MAX_DIRECTORY:
        raise DataError(
            f"{path}: its list of members has {human_bytes(length)}, more than {human_bytes(MAX_DIRECTORY)}",
            fix="unpack it, and name the folder",
        )
