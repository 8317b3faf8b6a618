"""From image files to pixels: one deterministic preprocessing for training images and queries."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guda_cli import git_lfs
from guda_cli.data.dataset import Pixels
from guda_cli.data.pixel_file import rows
from guda_cli.data.versions import IMAGE_SUFFIXES, PREPROCESSING_VERSION
from guda_cli.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODING_ERRORS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "PREPROCESSING_VERSION",
    "decode",
    "header",
    "is_image",
    "pixels_digest",
    "pixels_digests",
    "preprocess",
    "to_float",
]

MAX_PIXELS = 178_956_970
"""Largest width x height decoded, whatever the file's size (Pillow's own hard limit)."""

# Only these decoders run: Pillow knows others that start programs (EPS) or that nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_AVIF = "AVIF"  # not in every Pillow

_ORIENTATION = 0x0112

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


class _TooLargeError(Exception):
    """An image of more pixels than are decoded."""


@cache
def _formats() -> tuple[str, ...]:
    """The decoders that run, of those that this Pillow has."""
    from PIL import features

    return (*_FORMATS, _AVIF) if features.check(_AVIF.lower()) else _FORMATS


def is_image(name: str) -> bool:
    """Whether the file name ends like an image (`IMAGE_SUFFIXES`, in either case)."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in IMAGE_SUFFIXES


def preprocess(image: Image, size: int, channels: int) -> Pixels:
    """`image` as uint8 [channels, size, size], 0..255.

    In this order: EXIF orientation; centre crop to a square; transparency composited on white;
    conversion to RGB (channels 3) or luma "L" (channels 1), 16-bit greys divided by 257 and rounded;
    resize. The resize is nothing when the square is already `size`, the mean of each block (halves up)
    when its side is a whole multiple of `size`, Lanczos otherwise. Animations count by their first frame.
    ValueError for floating-point and 32-bit images, whose range is unknown.
    """
    from PIL.Image import Resampling

    plain = _plain(_square(_upright(image)), "L" if channels == 1 else "RGB")
    if plain.width % size:
        plain = plain.resize((size, size), Resampling.LANCZOS)
    pixels = np.asarray(plain, dtype=np.uint8)
    if len(pixels) != size:
        pixels = _box(pixels, len(pixels) // size)
    if channels == 1:
        return pixels[None].copy()
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode(
    data: bytes | Path, size: int, channels: int, name: str, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Read and preprocess one image file: uint8 [channels, size, size].

    DataError naming `name`, with the reason in `why`, when it is empty, damaged, of no accepted
    format, or larger than `max_pixels`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        raw = data if isinstance(data, bytes) else data.read_bytes()
        if not raw:
            raise ValueError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(raw), formats=_formats()) as image:
                if image.width * image.height > max_pixels:
                    raise _TooLargeError(
                        f"{image.width} x {image.height} pixels are more than {max_pixels:,}"
                    )
                image.load()
                return preprocess(image, size, channels)
    except UnidentifiedImageError:
        reason = (
            git_lfs.WHY
            if git_lfs.is_pointer(raw)
            else "it is no JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF or PNM image"
        )
        if name.lower().endswith(".avif") and _AVIF not in _formats():
            reason = "this Pillow reads no AVIF (guda doctor)"
    except (_TooLargeError, Image.DecompressionBombError) as err:
        reason = str(err) if isinstance(err, _TooLargeError) else f"it has more than {max_pixels:,} pixels"
        reason += f"; make it smaller: the model sees {size} x {size} of them"
    except DECODING_ERRORS as err:
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
    raise DataError(f"cannot read image {name}", why=reason, fix="replace the file or leave it out")


def header(data: bytes) -> tuple[str, int]:
    """Format and shorter side of an image file that `decode` has read."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        return image.format or "", min(image.size)


def small(images: Pixels, side: int) -> Pixels:
    """uint8 images [N, C, H, H] as [N, C, side, side]: the mean over the area that each pixel covers."""
    from PIL import Image

    out = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for i, image in enumerate(rows(images)):
        for j, channel in enumerate(image):
            out[i, j] = Image.fromarray(channel).resize((side, side), Image.Resampling.BOX)
    return out


def to_float(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 pixels of any shape to float32 in [-1, 1]: x / 127.5 - 1."""
    out = images.astype(np.float32)
    out /= np.float32(127.5)
    out -= np.float32(1)
    return out


def pixels_digest(pixels: Pixels) -> str:
    """SHA-256 (hex) of a uint8 array's shape and bytes; TypeError for another type."""
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, not {pixels.dtype}")
    shape = "x".join(map(str, pixels.shape))
    sha = hashlib.sha256(b"guda.pixels/1\0" + shape.encode("ascii") + b"\0")
    sha.update(np.ascontiguousarray(pixels).data)
    return sha.hexdigest()


def pixels_digests(images: Pixels) -> list[str]:
    """The `pixels_digest` of each of `images` [N, C, H, W]."""
    return [pixels_digest(image) for image in rows(images)]


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except DECODING_ERRORS:  # a broken EXIF block is no reason to lose the picture
        turned = False
    return ImageOps.exif_transpose(image) if turned else image


def _square(image: Image) -> Image:
    side = min(image.size)
    if side < 1:
        raise ValueError("the image has no pixels")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.width == image.height else image.crop((left, top, left + side, top + side))


def _plain(image: Image, mode: str) -> Image:
    """`image` opaque and in `mode`, "L" or "RGB"."""
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    elif image.mode == "F":
        raise ValueError("floating-point images have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _sum_runs(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Sums of each `length` neighbours along axis 0; slices, for they are quicker than a reduction here."""
    sums = values[0::length].copy()
    for offset in range(1, length):
        sums += values[offset::length]
    return sums


def _box(pixels: Pixels, factor: int) -> Pixels:
    """Means of factor x factor blocks of [H, W] or [H, W, C], rounded once, halves up.

    Pillow's own box filter rounds after each axis, which brightens by a quarter level on average.
    """
    values = pixels.astype(np.uint32 if factor < 4096 else np.uint64)
    sums = _sum_runs(values, factor).swapaxes(0, 1)
    sums = _sum_runs(sums, factor).swapaxes(0, 1)
    area = factor * factor
    means: Pixels = ((sums + area // 2) // area).astype(np.uint8)
    return means


def _from_16_bit(image: Image) -> Image:
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit images have no known range; save it with 8 or 16 bits")
    grey = ((values + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey)
