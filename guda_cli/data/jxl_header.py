"""The first bits of a JPEG XL file: how large its picture is, before a decoder asks for all of it."""

from __future__ import annotations

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_LONG = (9, 13, 18, 30)  # bits of a length, by its selector


class _Bits:
    """Numbers of a codestream, least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("its header is cut off")
        value = self._value & (1 << count) - 1
        self._value >>= count
        return value

    def length(self, *, small: bool) -> int:
        return (self.take(5) + 1) * 8 if small else self.take(_LONG[self.take(2)]) + 1

    def size(self) -> tuple[int, int]:
        """(width, height); ISO/IEC 18181-1, SizeHeader."""
        small = bool(self.take(1))
        height = self.length(small=small)
        ratio = self.take(3)
        if not ratio:
            return self.length(small=small), height
        wide, high = _RATIOS[ratio - 1]
        return height * wide // high, height


def jxl_size(raw: bytes) -> tuple[int, int]:
    """(width, height) as stored; ValueError where the header is damaged or the picture moves."""
    bits = _Bits(_codestream(raw)[2:66])
    size = bits.size()
    if bits.take(1) or not bits.take(1):  # all as usual, or nothing beyond colours
        return size
    bits.take(3)  # orientation, which the decoder applies
    if bits.take(1):
        bits.size()  # at which it should be shown
    if bits.take(1) or bits.take(1):
        raise ValueError("JPEG XL files with several pictures are not read; save the first one alone")
    return size


def _codestream(raw: bytes) -> bytes:
    if raw.startswith(b"\xff\x0a"):
        return raw[:128]
    at = 0
    for _ in range(1000):
        length, kind, head = int.from_bytes(raw[at : at + 4]), raw[at + 4 : at + 8], 8
        if length == 1:
            length, head = int.from_bytes(raw[at + 8 : at + 16]), 16
        start = at + head + (4 if kind == b"jxlp" else 0)
        if kind in (b"jxlc", b"jxlp") and raw[start : start + 2] == b"\xff\x0a":
            return raw[start : start + 128]
        if length < head:
            break
        at += length
    raise ValueError("its header is damaged")
