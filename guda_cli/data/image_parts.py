"""Image files without the parts that make no pixels: what is long, broken or trailing there does no harm.

Decoders read all of a file's texts, profiles and previews before its pixels. What they are given here are the
parts that decide what is seen, so that an image other programs open is read, and a small file stays cheap.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from guda_cli.data import exif

MAX_PARTS = 1_000_000
"""Chunks, segments or blocks of a file that are looked at."""

MAX_PASSES = 100
"""Passes of a progressive JPEG; programs write about ten."""

MAX_TEXT = 100_000_000
"""Characters of a PNM whose samples are written out; a tenth of a microsecond each."""

_PNG = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_LONGEST_TEXT = 1 << 20  # characters, unpacked: Pillow reads no longer ones
_ALL_TEXTS = 16 << 20
_TURNING = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may say which way up it is
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True)
class Parts:
    """A file as its decoder is given it."""

    data: bytes
    depth: int = 8
    """Bits a sample, where it is a PNG."""
    clear: tuple[int, ...] = ()
    """The transparent grey or colour of a PNG, in samples of that depth; empty where there is none."""


def needed(raw: bytes, *, texts: bool = False) -> Parts:
    """What of the file `raw` makes its pixels, and with `texts` its short texts.

    ValueError where it is damaged, or made of so many parts that reading them would take minutes. Files of
    other formats come back as they are.
    """
    if raw.startswith(_PNG):
        return _png(raw, texts=texts)
    if raw.startswith(b"\xff\xd8"):
        return Parts(_jpeg(raw))
    if raw[:6] in (b"GIF87a", b"GIF89a"):
        return Parts(_gif(raw))
    if raw[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        exif.check_directory(raw, "its directory of tags")
    elif raw[:2] in (b"P1", b"P2", b"P3") and len(raw) > MAX_TEXT:
        raise ValueError(f"its {len(raw):,} characters of numbers are more than {MAX_TEXT:,}; save it as PNG")
    elif raw[4:8] == b"ftyp":
        exif.check_inside(raw)
    return Parts(raw)


# -- PNG -----------------------------------------------------------------------------------------------------


def _png(raw: bytes, *, texts: bool) -> Parts:
    """IHDR, palette, transparency, pixels, and what says which way up they are.

    A broken chunk that decides no pixels is left out, as libpng does; anything after IEND, too.
    """
    kept, seen = [memoryview(_PNG)], set[bytes]()
    words: dict[bytes, memoryview] = {}
    head, clear = b"", b""
    for kind, data, whole in _chunks(raw):
        if kind == b"IHDR":
            if head or len(data) != 13:
                raise ValueError("its header is damaged")
            head = bytes(data)
        elif not head:
            raise ValueError("it does not begin with its header")
        if kind[0] & 0x20:  # ancillary
            if kind in _TEXTS:
                keyword = bytes(data[:80]).partition(b"\0")[0]
                if (texts or keyword in _TURNING) and _sound(kind, data, whole) and _short(kind, data):
                    words[keyword] = whole
            elif kind == b"tRNS" and not seen & {b"tRNS", b"IDAT"}:
                clear = bytes(data)
                kept.append(whole)
            elif kind == b"eXIf" and _sound(kind, data, whole):
                kept.append(whole)
        elif kind in _CRITICAL:
            kept.append(whole)
        else:
            name = kind.decode("latin-1")
            known = " (written for iPhones by Apple's tools)" if kind == b"CgBI" else ""
            raise ValueError(
                f"it has pixels in a form of its own, {name!a}{known}; save it as an ordinary PNG"
            )
        seen.add(kind)
    depth, colour = (head[8], head[9]) if head else (8, 0)
    if colour == 3 and b"PLTE" not in seen and b"IDAT" in seen:
        raise ValueError("it has no palette")
    total, extra = 0, []
    for whole in words.values():
        total += min(len(whole), _LONGEST_TEXT)
        if total <= _ALL_TEXTS:
            extra.append(whole)
    if extra and len(kept) > 1:
        kept[2:2] = extra
    mask = (1 << depth) - 1
    count = {0: 1, 2: 3}.get(colour, 0)
    values = struct.unpack_from(f">{count}H", clear) if count and len(clear) >= 2 * count else ()
    return Parts(b"".join(kept), depth, tuple(value & mask for value in values))


def _chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, data and whole of each chunk up to IEND; of one that is cut off what is there."""
    view, at = memoryview(raw), len(_PNG)
    for _ in range(MAX_PARTS):
        if len(raw) - at < 8:
            return
        (length,), kind = struct.unpack_from(">I", raw, at), raw[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(raw) and kind[0] & 0x20:
            return  # cut off in something that makes no pixels
        yield kind, view[at + 8 : min(at + 8 + length, len(raw))], view[at:end]
        at = end
        if kind == b"IEND":
            return
    raise ValueError(f"it has more than {MAX_PARTS:,} chunks")


def _sound(kind: bytes, data: memoryview, whole: memoryview) -> bool:
    """Whether the checksum of a chunk is right."""
    return len(whole) == len(data) + 12 and zlib.crc32(data, zlib.crc32(kind)) == int.from_bytes(whole[-4:])


def _short(kind: bytes, data: memoryview) -> bool:
    """Whether a text, unpacked, is one that Pillow reads."""
    if len(data) > _LONGEST_TEXT:
        return False
    _, _, rest = bytes(data).partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return True
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    try:
        return len(zlib.decompressobj().decompress(packed, _LONGEST_TEXT)) < _LONGEST_TEXT
    except zlib.error:
        return False


# -- JPEG ----------------------------------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_AFTER_DATA = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_SOS, _EOI, _APP1, _APP14, _COM = 0xDA, 0xD9, 0xE1, 0xEE, 0xFE
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def _jpeg(raw: bytes) -> bytes:
    """The first picture of the file, with its EXIF and XMP blocks and Adobe's word on its colours."""
    view, kept, at, passes = memoryview(raw), [memoryview(raw[:2])], 2, 0
    seen = set[bytes]()
    for _ in range(MAX_PARTS):
        found = (_AFTER_DATA if passes else _MARKER).search(raw, at)
        if passes:
            kept.append(view[at : found.start() if found else len(raw)])  # entropy-coded
        if found is None:
            break
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            kept.append(view[at - 2 : at])
            break
        if marker in _BARE:
            continue
        end = at + int.from_bytes(raw[at : at + 2])
        if end < at + 2:
            raise ValueError("a part of it has an impossible length")
        if marker == _SOS:
            passes += 1
            if passes > MAX_PASSES:
                raise ValueError(f"its picture comes in more than {MAX_PASSES} passes")
        if _makes_pixels(marker, raw[at + 2 : at + 40], seen):
            kept.append(view[at - 2 : end])
        at = end
    else:
        raise ValueError(f"it has more than {MAX_PARTS:,} parts")
    return b"".join(kept)


def _makes_pixels(marker: int, start: bytes, seen: set[bytes]) -> bool:
    """Whether a segment says something of the pixels; EXIF and XMP once each."""
    if marker == _APP1:
        name = next((name for name in (b"Exif\0", _XMP) if start.startswith(name)), None)
        if name is None or name in seen:
            return False
        seen.add(name)
        return True
    if 0xE2 <= marker <= 0xEF or marker == _COM:
        return marker == _APP14
    return True


# -- GIF -----------------------------------------------------------------------------------------------------


def _gif(raw: bytes) -> bytes:
    """The first picture with its palettes and transparency."""
    view, left = memoryview(raw), [MAX_PARTS * 4]
    at = 13 + (3 << (raw[10] & 7) + 1 if len(raw) > 12 and raw[10] & 0x80 else 0)
    kept = [view[:at]]
    while at < len(raw):
        kind = raw[at]
        if kind == 0x21:  # an extension
            end = _after_blocks(raw, at + 2, left)
            if raw[at + 1 : at + 2] == b"\xf9":
                kept.append(view[at:end])
        elif kind == 0x2C:
            table = 3 << (raw[at + 9] & 7) + 1 if at + 9 < len(raw) and raw[at + 9] & 0x80 else 0
            end = _after_blocks(raw, at + 11 + table, left)
            kept.append(view[at:end])
            if end <= len(raw):
                kept.append(memoryview(b";"))
            break
        elif kind == 0:  # some programs write one too many
            end = at + 1
            left[0] -= 1
        else:
            break
        if left[0] < 0:
            raise ValueError(f"it has more than {MAX_PARTS * 4:,} blocks")
        at = end
    return b"".join(kept)


def _after_blocks(raw: bytes, at: int, left: list[int]) -> int:
    """Where a row of blocks, each with its length before it, ends; beyond the file where it is cut off."""
    while at < len(raw) and left[0] >= 0:
        length = raw[at]
        at += 1 + length
        left[0] -= 1
        if not length:
            return at
    return len(raw) + 1
