"""What the members of a zip archive are called: the format's own rule is not what most programs keep to."""

from __future__ import annotations

import struct
import zlib
from zipfile import ZipInfo

from guda_cli.phrases import few, plural

_UTF_8 = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field: version, CRC-32 of the plain name, the name in UTF-8


def name_of(info: ZipInfo) -> tuple[str, bool]:
    """The name of a member, and whether it is sure.

    In this order: what the flag for UTF-8 says, Info-ZIP's Unicode name, UTF-8 where it decodes (macOS
    packs so, without the flag), and else code page 437.
    """
    raw = info.orig_filename
    if info.flag_bits & _UTF_8 or raw.isascii():
        return raw, True
    data = raw.encode("cp437")
    for candidate in (_unicode_path(info.extra, data), data):
        try:
            if candidate is not None:
                return candidate.decode("utf-8"), True
        except UnicodeDecodeError:
            continue
    return raw, False


def unsure(names: list[str]) -> str:
    """What to say of names that were read by the last rule."""
    what = plural(len(names), "name in the archive is", "names in the archive are")
    return (
        f"{what} no UTF-8 and of no encoding that it says: read as code page 437, as zip files have it "
        f"({few(names, 2)}); if that is wrong, pack it anew with UTF-8 names"
    )


def _unicode_path(extra: bytes, plain: bytes) -> bytes | None:
    """The name in UTF-8 from a member's extra fields; None where there is none of the name `plain`."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        value, at = extra[at + 4 : at + 4 + size], at + 4 + size
        if kind == _UNICODE_PATH and len(value) > 5 and value[0] == 1:
            return value[5:] if struct.unpack_from("<L", value, 1)[0] == zlib.crc32(plain) else None
    return None
