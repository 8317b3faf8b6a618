"""Images that other programs open, and files made to be expensive: read exactly, or refused by name."""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guda_cli.data import image_formats, images
from guda_cli.data.images import decode, header
from guda_cli.errors import DataError

PIXELS = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
TURN = (0x0112, 3, 1, b"\x06\0")
TALL = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def raw_png(width: int, depth: int, colour: int, rows: list[bytes], *parts: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *parts, chunk(b"IDAT", body), chunk(b"IEND", b""))
    )


def why(data: bytes | Path, size: int = 8) -> str:
    with pytest.raises(DataError, match="cannot read image") as caught:
        decode(data, size, 3, "x")
    return caught.value.why


def directory(*entries: tuple[int, int, int, bytes], base: int = 8) -> bytes:
    """A TIFF directory, little-endian; values longer than four bytes lie behind it."""
    body, extra = struct.pack("<H", len(entries)), b""
    start = base + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        body += struct.pack("<HHI", tag, kind, count)
        body += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(extra))
        extra += value if len(value) > 4 else b""
    return body + bytes(4) + extra


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + directory(*entries)


# -- PNG chunks that make no pixels ------------------------------------------------------------------------

LONG = zlib.compress(b'{"nodes": "' + b"n" * 1_500_000 + b'"}')


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"workflow\0\0" + LONG),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
        chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"n" * 3_000_000),
        chunk(b"tEXt", b"workflow\0" + b"n" * 3_000_000),
        b"".join(chunk(b"tEXt", b"key%d\0" % i + b"n" * 1_000_000) for i in range(70)),
        chunk(b"iCCP", b"profile\0\0" + LONG),
        chunk(b"iCCP", b"profile\0\0" + b"no profile"),
        chunk(b"zTXt", b"workflow\0\0no zlib"),
        chunk(b"zTXt", b"workflow"),
        chunk(b"iTXt", b"key\0\1"),
        chunk(b"iDOT", b"unknown"),
        chunk(b"tEXt", b"key\0text", crc=7),
        chunk(b"pHYs", b"\0", crc=7),
        chunk(b"gAMA", b""),
        chunk(b"eXIf", exif(TURN)[6:], crc=7),
        chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", b"short"),
    ],
    ids=lambda data: f"{data[4:8].decode()}-{len(data)}",
)
def test_chunks_that_make_no_pixels_do_no_harm(extra: bytes) -> None:
    whole = encoded(PIXELS)
    expected = decode(whole, 8, 3, "x")
    at = whole.index(b"IDAT") - 4
    for data in (whole[:at] + extra + whole[at:], whole[:-12] + extra + whole[-12:]):
        np.testing.assert_array_equal(decode(data, 8, 3, "x"), expected)
        assert header(data) == ("PNG", 8)


@pytest.mark.parametrize(
    "end",
    [b"", chunk(b"IEND", b"")[:7], chunk(b"IEND", b"") + b"PK\3\4rest", chunk(b"tEXt", b"k\0text")[:15]],
)
def test_whatever_ends_a_png_after_its_pixels(end: bytes) -> None:
    data = encoded(PIXELS)[:-12] + end
    np.testing.assert_array_equal(decode(data, 8, 3, "x"), PIXELS.transpose(2, 0, 1))


def test_a_turn_named_in_texts_of_a_png_stays() -> None:
    plain, turned = encoded(TALL), decode(encoded(TALL, exif=exif(TURN)), 24, 3, "x")
    at = plain.index(b"IDAT") - 4
    block = exif(TURN).hex().encode()
    profile = chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n   %d\n" % len(block) + block)
    )
    packet = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    for extra in (profile, packet, chunk(b"eXIf", exif(TURN)[6:])):
        np.testing.assert_array_equal(decode(plain[:at] + extra + plain[at:], 24, 3, "x"), turned)


def test_damage_to_what_makes_the_pixels_is_refused() -> None:
    rows = [bytes(24)] * 8
    assert "iPhones" in why(raw_png(8, 8, 2, rows, chunk(b"CgBI", b"\x50\0\x20\2")))
    assert "no palette" in why(raw_png(8, 8, 3, [bytes(8)] * 8))
    whole = encoded(PIXELS)
    ihdr = whole[8:33]
    assert "header" in why(whole[:33] + ihdr + whole[33:])
    assert "header" in why(whole[:8] + whole[33:])
    assert why(raw_png(8, 8, 2, rows, chunk(b"tRNS", bytes(6), crc=1)))
    assert "header" in why(b"\x89PNG\r\n\x1a\n" + bytes(60))


# -- transparency of a colour ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [0, 1])
def test_a_transparent_grey_of_every_depth_is_white(depth: int, clear: int) -> None:
    """Samples 0 and 1 side by side, all others full; only the transparent one changes."""
    most = (1 << depth) - 1
    samples = np.array([0, 1, most, most, most, most, most, most])
    bits = "".join(format(value, f"0{depth}b") for value in samples)
    row = int(bits, 2).to_bytes(depth, "big")
    out = decode(raw_png(8, depth, 0, [row] * 8, chunk(b"tRNS", struct.pack(">H", clear))), 8, 1, "x")[0, 0]
    expected = [0, 0 if depth == 16 else 255 // most, 255]
    expected[clear] = 255
    assert out[:3].tolist() == expected


def test_sixteen_bits_are_compared_whole() -> None:
    """Colours that differ from the transparent one in their lower bytes only are seen."""
    grey = struct.pack(">8H", *[0x1200, 0x1201, 0x1200, 0x1280, 0, 0xFFFF, 0x1200, 0x12FF])
    out = decode(raw_png(8, 16, 0, [grey] * 8, chunk(b"tRNS", struct.pack(">H", 0x1200))), 8, 1, "x")[0, 0]
    assert out.tolist() == [255, 18, 255, 18, 0, 255, 255, 19]
    colours = [(0x1234, 0x5678, 0x9ABC), (0x1235, 0x5678, 0x9ABC), (0x1234, 0x5679, 0x9ABC), (1, 2, 3)] * 2
    row = b"".join(struct.pack(">3H", *colour) for colour in colours)
    tag = chunk(b"tRNS", struct.pack(">3H", *colours[0]))
    out = decode(raw_png(8, 16, 2, [row] * 8, tag), 8, 3, "x")[:, 0, :4]
    assert out.T.tolist() == [[255, 255, 255], [0x12, 0x56, 0x9A], [0x12, 0x56, 0x9A], [0, 0, 0]]


def test_clear_throughout_is_white_whatever_the_kind() -> None:
    rows = [struct.pack(">8H", *[0x1200] * 8)] * 8
    for depth, colour, row, clear in (
        (16, 0, rows[0], struct.pack(">H", 0x1200)),
        (16, 2, struct.pack(">H", 0x1200) * 24, struct.pack(">3H", *[0x1200] * 3)),
        (8, 0, b"\7" * 8, struct.pack(">H", 7)),
        (8, 0, b"\7" * 8, struct.pack(">H", 0x0107)),  # only as many bits as samples have count
        (8, 2, b"\7" * 24, struct.pack(">3H", 7, 7, 7)),
        (16, 4, struct.pack(">H", 0x1200) + bytes(2), b""),
        (16, 6, struct.pack(">3H", *[0x1200] * 3) + bytes(2), b""),
    ):
        row = row if clear else row * 8
        data = raw_png(8, depth, colour, [row] * 8, *([chunk(b"tRNS", clear)] if clear else []))
        for channels in (1, 3):
            assert (decode(data, 8, channels, "x") == 255).all(), (depth, colour)


# -- EXIF --------------------------------------------------------------------------------------------------

ODD = [
    exif(TURN, (0x0110, 5, 1, struct.pack("<II", 1, 2))),  # a camera's name as a fraction
    exif(TURN, (0x010E, 12, 1, struct.pack("<d", 1.5))),
    exif(TURN, (0x9286, 2, 3, b"abc")),
    exif(TURN, (0x011A, 2, 4, b"high")),  # a resolution as text
    exif(TURN, (0x8769, 2, 4, b"none")),  # a directory as text
    exif(TURN, (0x8825, 4, 1, struct.pack("<I", 8))),  # one that leads to itself
    exif(TURN, (0x8769, 4, 1, struct.pack("<I", 60_000))),  # beyond the end
    exif(TURN, (0x010F, 2, 1 << 31, struct.pack("<I", 8))),
    exif(TURN, (0x010F, 99, 1, b"")),
    exif(TURN)[:-4],
]


@pytest.mark.parametrize("block", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_of_a_broken_exif_block_only_the_orientation_matters(block: bytes, format: str) -> None:
    exact = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(format, {})
    expected = decode(encoded(TALL, format, exif=exif(TURN), **exact), 24, 3, "x")
    plain = decode(encoded(TALL, format, **exact), 24, 3, "x")
    assert (expected != plain).any()
    np.testing.assert_array_equal(decode(encoded(TALL, format, exif=block, **exact), 24, 3, "x"), expected)


@pytest.mark.parametrize(
    "entry",
    [
        (0x0112, 3, 1, b"\0\0"),
        (0x0112, 3, 1, b"\x09\0"),
        (0x0112, 2, 2, b"6\0"),
        (0x0112, 3, 0, b""),
        (0x0113, 3, 1, b"\6\0"),
    ],
)
def test_an_orientation_that_is_none_turns_nothing(entry: tuple[int, int, int, bytes]) -> None:
    np.testing.assert_array_equal(
        decode(encoded(TALL, exif=exif(entry)), 24, 3, "x"), decode(encoded(TALL), 24, 3, "x")
    )


@pytest.mark.parametrize(
    "broken", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0rubbish", b"Exif\0\0II*\0" + b"\xff" * 40]
)
def test_a_block_that_holds_nothing_turns_nothing(broken: bytes) -> None:
    data = encoded(TALL, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:], 24, 3, "x"), decode(data, 24, 3, "x"))


# -- JPEG, GIF, TIFF, WebP ---------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE2, b"MPF\0garbage"),
        segment(0xE2, b"ICC_PROFILE\0\x05\x02short"),
        segment(0xED, b"Photoshop 3.0\x008BIM\xff\xff"),
        segment(0xFE, b"a remark " * 5000),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(100)),
        segment(0xEA, b"anything") * 3000,
        b"\xff" * 50_000,
        b"stray bytes",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_parts_of_a_jpeg_that_make_no_pixels(extra: bytes) -> None:
    whole = encoded(TALL, "JPEG", quality=90)
    expected = decode(whole, 8, 3, "x")
    np.testing.assert_array_equal(decode(whole[:2] + extra + whole[2:], 8, 3, "x"), expected)
    np.testing.assert_array_equal(decode(whole + extra + whole, 8, 3, "x"), expected)


def test_of_several_pictures_the_first_is_read() -> None:
    first, second = Image.fromarray(TALL), Image.new("RGB", (40, 24))
    expected = decode(encoded(first, "JPEG"), 8, 3, "x")
    several = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(decode(several, 8, 3, "x"), expected)
    assert header(several) == ("JPEG", 24)
    for format, options in (("WEBP", {"lossless": True}), ("TIFF", {}), ("GIF", {}), ("PNG", {})):
        one = first.quantize(16) if format == "GIF" else first
        moving = encoded(one, format, save_all=True, append_images=[second.convert(one.mode)], **options)
        np.testing.assert_array_equal(
            decode(moving, 8, 3, "x"), decode(encoded(one, format, **options), 8, 3, "x"), format
        )


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_what_pillow_shows(format: str) -> None:
    ink = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8, 4), dtype=np.uint8), "CMYK")
    data = encoded(ink, format)
    with Image.open(io.BytesIO(data)) as shown:
        np.testing.assert_array_equal(
            decode(data, 8, 3, "x"), np.asarray(shown.convert("RGB")).transpose(2, 0, 1)
        )


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_samples_of_sixteen_bits_agree_with_those_of_eight(colour: int, depth: int) -> None:
    count = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(6).integers(0, 256, (8, 8, count))
    values[..., -1] = 255 if colour >= 4 else values[..., -1]
    rows = [(row * (257 if depth == 16 else 1)).astype(f">u{depth // 8}").tobytes() for row in values]
    wanted = values[..., :3] if count >= 3 else np.repeat(values[..., :1], 3, axis=2)
    np.testing.assert_array_equal(
        decode(raw_png(8, depth, colour, rows), 8, 3, "x"), wanted.transpose(2, 0, 1)
    )


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_of_unknown_range_are_refused_however_small(mode: str) -> None:
    assert "8 or 16 bits" in why(encoded(Image.new(mode, (8, 8), 100), "TIFF"))


def test_large_images_are_read_in_strips_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from guda_cli.data import preprocessing

    wide = np.random.default_rng(7).integers(0, 256, (60, 97, 4), dtype=np.uint8)
    files = [
        encoded(Image.fromarray(wide).convert(mode), "PNG", exif=exif((0x0112, 3, 1, bytes((turn, 0)))))
        for mode in ("RGBA", "RGB", "LA", "L")
        for turn in range(1, 9)
    ]
    deep = np.random.default_rng(8).integers(0, 65536, (60, 97), dtype=np.uint16)
    files += [encoded(deep, exif=exif((0x0112, 3, 1, bytes((turn, 0))))) for turn in range(1, 9)]
    sizes = [(size, channels) for size in (60, 20, 7) for channels in (1, 3)]
    whole = [decode(data, size, channels, "x") for data in files for size, channels in sizes]
    monkeypatch.setattr(preprocessing, "_STRIP", 200)
    strips = [decode(data, size, channels, "x") for data in files for size, channels in sizes]
    for one, other in zip(whole, strips, strict=True):
        np.testing.assert_array_equal(one, other)


# -- files made to be expensive ----------------------------------------------------------------------------


def _tags(count: int, length: int) -> bytes:
    """A block whose tags all name the whole of its `length` bytes."""
    entries = b"".join(struct.pack("<HHII", i, 7, length, 0) for i in range(count))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)).ljust(length, b"\0")


def _gif_of(extension: bytes) -> bytes:
    whole = encoded(Image.fromarray(PIXELS).quantize(8), "GIF")
    at = 13 + (3 << (whole[10] & 7) + 1)
    return whole[:at] + extension + whole[at:]


EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "exif of a PNG": lambda: raw_png(8, 8, 2, [bytes(24)] * 8, chunk(b"eXIf", _tags(40_000, 3_000_000))),
    "exif of a WebP": lambda: encoded(PIXELS, "WEBP", exif=_tags(40_000, 3_000_000)),
    "exif of an AVIF": lambda: encoded(PIXELS, "AVIF") + _tags(40_000, 3_000_000),
    "tags of a TIFF": lambda: _tags(40_000, 3_000_000),
    "passes of a JPEG": lambda: _with_passes(5_000),
    "chunks of a PNG": lambda: raw_png(8, 8, 2, [bytes(24)] * 8, chunk(b"tEXt", b"a\0b") * 1_100_000),
    "segments of a JPEG": lambda: b"\xff\xd8" + segment(0xFE, b"") * 1_100_000 + encoded(PIXELS, "JPEG")[2:],
    "numbers of a PNM": lambda: b"P3\n2000 2000\n255\n" + b"12 " * 40_000_000,
    "blocks of a GIF": lambda: _gif_of(b"!\xfe" + b"\1a" * 4_100_000 + b"\0"),
    "a PNG of much memory": lambda: _empty(60_000, 2_900),
}


def _with_passes(count: int) -> bytes:
    whole = encoded(TALL, "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def _empty(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(300_000_000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", EXPENSIVE)
def test_a_file_made_to_be_expensive_is_refused_soon(name: str) -> None:
    data = EXPENSIVE[name]()
    began = time.process_time()
    reason = why(data)
    assert time.process_time() - began < 5
    assert "than" in reason or "memory" in reason, reason


def test_long_extensions_of_a_gif_cost_nothing() -> None:
    """Pillow would put them together block by block, each time anew."""
    data = _gif_of(b"!\xfe" + (b"\xff" + b"a" * 255) * 40_000 + b"\0")
    began = time.process_time()
    np.testing.assert_array_equal(decode(data, 8, 3, "x"), decode(_gif_of(b""), 8, 3, "x"))
    assert time.process_time() - began < 2


def test_memory_is_estimated_by_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_MEMORY", 1500)
    for format, fits in (("PNG", True), ("WEBP", True), ("JPEG", True)):
        assert bool(decode(encoded(PIXELS, format), 8, 3, "x").size) is fits
    monkeypatch.setattr(images, "MAX_MEMORY", 900)
    assert "of memory" in why(encoded(PIXELS, "WEBP"))


# -- what is no file, and what is no image ------------------------------------------------------------------


def test_pipes_sockets_and_devices_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("a.png")
    assert "a pipe" in why(Path("a.png"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("b.png")
        assert "a socket" in why(Path("b.png"))
    assert "a device" in why(Path(os.devnull))
    assert "a folder" in why(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 image"),
        (b"8BPS\0\1" + bytes(40), "a Photoshop file"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<!DOCTYPE html><html><body>not found", "a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "a video"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "a sound or video"),
        (b"RIFF\x10\0\0\0WAVEWEBP", "a sound or video"),
        (b"\xff\xd8\xff\xe0\0\4ab", "a damaged JPEG"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(data: bytes, said: str) -> None:
    assert said in why(data)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
JXL = b"\xff\x0a" + bytes(64)


@pytest.mark.parametrize(("data", "spoken"), [(HEIC, "HEIC"), (JXL, "JPEG XL")])
def test_without_the_package_the_command_that_brings_it_is_told(
    data: bytes, spoken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pillow_heif", "pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)
    image_formats._load.cache_clear()
    for name in ("x.heic", "x.png", "x.jxl"):  # told by the content, whatever the name
        with pytest.raises(DataError) as caught:
            decode(data, 8, 3, name)
        assert spoken in caught.value.why
        assert caught.value.fix == "pip install 'guda[images]'"
    assert decode(encoded(PIXELS), 8, 3, "x").shape == (3, 8, 8)


def test_heic_is_read_upright() -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    smooth = Image.fromarray(np.linspace(0, 255, 24 * 40, dtype=np.uint8).reshape(24, 40)).convert("RGB")
    out = io.BytesIO()
    heif.from_pillow(smooth).save(out, quality=100)
    plain = decode(out.getvalue(), 24, 3, "x.heic")
    assert np.abs(plain.astype(int) - decode(encoded(smooth), 24, 3, "x")).max() < 6
    assert header(out.getvalue()) == ("HEIF", 24)
    turned = Image.fromarray(np.asarray(smooth))
    out = io.BytesIO()
    heif.register_heif_opener()
    turned.save(out, "HEIF", quality=100, exif=exif(TURN)[6:])
    expected = decode(encoded(smooth, exif=exif(TURN)), 24, 3, "x")
    assert np.abs(decode(out.getvalue(), 24, 3, "x").astype(int) - expected).max() < 6
    with pytest.raises(DataError):
        decode(out.getvalue()[:400], 24, 3, "x.heic")


def test_jpeg_xl_is_read_exactly() -> None:
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    import pillow_jxl.JpegXLImagePlugin  # noqa: F401 - registers itself

    expected = decode(encoded(TALL), 24, 3, "x")
    for options in ({}, {"use_container": True}, {"exif": exif(TURN)[6:]}):  # its decoder turns images itself
        data = encoded(TALL, "JXL", lossless=True, **options)
        np.testing.assert_array_equal(decode(data, 24, 3, "x.jxl"), expected)
        assert header(data) == ("JXL", 24)
        with pytest.raises(DataError, match="cannot read"):
            decode(data[: len(data) // 2], 24, 3, "x.jxl")


@pytest.mark.parametrize("size", [(8, 8), (40, 24), (300, 200), (16, 9), (1, 2000), (4000, 3000), (257, 256)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    from guda_cli.data.jxl_header import jxl_size

    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    import pillow_jxl.JpegXLImagePlugin  # noqa: F401 - registers itself

    for container in (False, True):
        assert jxl_size(encoded(Image.new("L", size), "JXL", effort=1, use_container=container)) == size


def test_a_jpeg_xl_too_large_is_not_decoded() -> None:
    """2^30 pixels a side: the header of 9 bytes says so."""
    value = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33 | 1 << 36  # not small, selector 3, height, ratio 1:1
    with pytest.raises((DataError, ValueError)) as caught:
        decode(b"\xff\x0a" + value.to_bytes(9, "little") + bytes(60), 8, 3, "x.jxl")
    if "package" not in getattr(caught.value, "why", ""):
        assert "pixels" in caught.value.why
