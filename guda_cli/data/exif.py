"""EXIF and TIFF directories: which way up an image is, and what reading its tags may cost."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# What Pillow's decoders raise on damaged input.
DECODING_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

_ORIENTATION = 0x0112
_BELOW = (0x8769, 0x8825, 0xA005)  # tags that lead to directories of their own: Exif, GPS, interoperability
_LONGEST = 16 << 20  # bytes of an EXIF block
_SPARE = 1 << 20  # bytes that tags may claim beyond four times what is there: broken blocks are common
_MOST_TAGS = 100_000
_HEADS = re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+")
_UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of each TIFF type


def orientation_of(image: Image) -> int:
    """How `image` has to be turned, 1 (not at all) to 8, as EXIF counts; 1 where it does not say.

    Only this tag matters: whatever else is broken in the block is no reason to lose the picture. ValueError
    where the block is made to cost more than it can hold.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # turned by its decoder: the EXIF block repeats what that has done
    _check_block(image)
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in range(2, 9) else 1
    except DECODING_ERRORS:
        return 1


def check_directory(data: bytes | memoryview, what: str = "its EXIF block") -> None:
    """ValueError where the tags of a TIFF or EXIF block claim far more bytes than it has.

    Each tag names a part of the block, and Pillow copies that for every tag: a few kilobytes of tags that all
    name everything would take gigabytes.
    """
    total, budget = 0, 4 * len(data) + _SPARE
    for tags, size in enumerate(_claims(memoryview(data))):
        total += size
        if total > budget or tags > _MOST_TAGS:
            raise ValueError(f"{what} claims more than the file holds")


def check_inside(raw: bytes) -> None:
    """`check_directory` for whatever looks like a block in a file whose decoder reads it on opening."""
    for found in _HEADS.finditer(raw):
        check_directory(memoryview(raw)[found.start() :])


def _check_block(image: Image) -> None:
    block = image.info.get("exif")
    text = image.info.get("Raw profile type exif")  # ImageMagick's, in a PNG's text: hexadecimal
    if block is None and isinstance(text, str):
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            return
    if isinstance(block, bytes):
        if len(block) > _LONGEST:
            raise ValueError(f"its EXIF block has {len(block):,} bytes, more than {_LONGEST:,}")
        check_directory(block.removeprefix(b"Exif\0\0"))


def _claims(data: memoryview) -> Iterator[int]:
    """Bytes that each tag claims, of all directories that Pillow opens, as far as they can be read."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or len(data) < 8:
        return
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    head, entry, first = ("Q", "HHQ8s", 8) if big else ("H", "HHI4s", 4)
    offset, length = order + ("Q" if big else "I"), struct.calcsize(order + entry)
    try:
        waiting, seen = [struct.unpack_from(offset, data, first)[0]], set[int]()
        while waiting:
            at = waiting.pop()
            if at in seen or at >= len(data):
                continue
            seen.add(at)
            (count,) = struct.unpack_from(order + head, data, at)
            at += struct.calcsize(order + head)
            for place in range(at, min(at + count * length, len(data) - length + 1), length):
                tag, kind, number, value = struct.unpack_from(order + entry, data, place)
                size = number * (_UNITS[kind] if kind < len(_UNITS) else 0)
                (target,) = struct.unpack(offset, value)
                yield 0 if size <= len(value) else min(size, max(0, len(data) - target))
                if tag in _BELOW:
                    waiting.append(target)
    except struct.error:
        return
