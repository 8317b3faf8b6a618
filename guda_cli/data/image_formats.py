"""Image formats by their first bytes: which are read, which need a package more, and which are not read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

# Only these decoders run: Pillow knows others that start programs (EPS) or that nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_AVIF = "AVIF"  # not in every Pillow
EXTRA = "images"
READ = "JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF, PNM, HEIC or JPEG XL"


class LackingError(Exception):
    """An image whose decoder is not installed; `fix` is the command that brings it."""

    def __init__(self, spoken: str, package: str) -> None:
        self.fix = f"pip install 'guda[{EXTRA}]'"
        super().__init__(f"{spoken} images need {package}, which is not installed ({self.fix})")


def _of_brands(*brands: bytes) -> Callable[[bytes], bool]:
    """Whether a file is a box of ISO's media format whose main brand is one of these."""
    return lambda head: head[4:8] == b"ftyp" and head[8:12] in brands


@dataclass(frozen=True)
class Optional:
    """A format whose decoder is a package of its own, loaded when the first such file is met."""

    name: str
    """Pillow's name of it."""
    spoken: str
    package: str
    module: str
    begins: Callable[[bytes], bool]


_OPTIONAL = (
    Optional(
        "HEIF", "HEIC", "pillow-heif", "pillow_heif",
        _of_brands(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    ),
    Optional(
        "JXL", "JPEG XL", "pillow-jxl-plugin", "pillow_jxl.JpegXLImagePlugin",
        lambda head: head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ),
)  # fmt: skip

# First bytes of what is met under the names of images, and how it is called.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop file"),
    (b"%!PS", "a PostScript file"),
    (b"%PDF", "a PDF document"),
    (b"gimp xcf", "a GIMP file"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"DDS ", "a DDS texture"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "gzipped"),
    (b"RIFF", "a sound or video file (RIFF)"),
    (b"\x1aE\xdf\xa3", "a video (Matroska)"),
    (b"FUJIFILM", "a camera's raw file"),
)
_KNOWN = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


@cache
def _plain() -> tuple[str, ...]:
    """The decoders that run, of those that this Pillow has."""
    from PIL import features

    return (*_FORMATS, _AVIF) if features.check(_AVIF.lower()) else _FORMATS


def decoders(raw: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats that may be in `raw`; LackingError where a package is."""
    for own in _OPTIONAL:
        if own.begins(raw[:32]) and not is_avif(raw):
            return (_load(own),)
    return _plain()


def is_avif(raw: bytes) -> bool:
    """Whether `raw` is AVIF, also where its main brand says no more than that it is a still image."""
    if raw[4:8] != b"ftyp":
        return False
    brands = raw[8 : int.from_bytes(raw[:4])][:256]
    return brands[:4] in (b"avif", b"avis") or (
        brands[:4] in (b"mif1", b"msf1") and b"avif" in brands and b"heic" not in brands
    )


def what(raw: bytes) -> str:
    """What is to be said of a file that no decoder knows."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "it is a damaged WebP file"
    if is_avif(raw):
        return "it is a damaged AVIF file" if _AVIF in _plain() else "this Pillow reads no AVIF (guda doctor)"
    for own in _OPTIONAL:
        if own.begins(raw[:32]):
            return f"it is a damaged {own.spoken} file"
    known = next((name for start, name in _KNOWN if raw.startswith(start)), None)
    if known:
        return f"it is a damaged {known} file"
    other = next((name for start, name in _OTHERS if raw.startswith(start)), None) or _text(raw)
    return f"it is {other}, and no {READ} image" if other else f"it is no {READ} image"


def _text(raw: bytes) -> str | None:
    start = raw[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "an SVG drawing" if b"<svg" in raw[:4096].lower() else "an XML document"
    if raw[4:8] == b"ftyp":
        return "a video or another file of ISO's media format"
    return None


@cache
def _load(own: Optional) -> str:
    try:
        found = importlib.import_module(own.module)
    except ImportError:
        raise LackingError(own.spoken, own.package) from None
    if own.name == "HEIF":
        found.register_heif_opener(thumbnails=False)
    return own.name
