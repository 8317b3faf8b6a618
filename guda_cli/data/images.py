"""From image files to pixels: one deterministic preprocessing for training images and queries."""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from guda_cli import git_lfs
from guda_cli.data import image_formats
from guda_cli.data.dataset import Pixels
from guda_cli.data.exif import DECODING_ERRORS
from guda_cli.data.image_parts import Parts, needed
from guda_cli.data.jxl_header import jxl_size
from guda_cli.data.pixel_file import rows
from guda_cli.data.preprocessing import preprocess
from guda_cli.data.versions import IMAGE_SUFFIXES, PREPROCESSING_VERSION
from guda_cli.errors import DataError
from guda_cli.phrases import human_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODING_ERRORS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "PREPROCESSING_VERSION",
    "decode",
    "extent",
    "header",
    "is_image",
    "opened_for_texts",
    "pixels_digest",
    "pixels_digests",
    "preprocess",
    "read_file",
    "to_float",
]

MAX_PIXELS = 178_956_970
"""Largest width x height decoded, whatever the file's size (Pillow's own hard limit)."""

MAX_BYTES = 1 << 30
"""Largest image file."""

MAX_MEMORY = 2 * 10**9
"""Bytes that reading one image may take."""

# Bytes a pixel that decoding and preprocessing take at most, decoders' own buffers included, as measured.
_BYTES = {
    "PNG": 10,
    "JPEG": 11,
    "GIF": 8,
    "BMP": 11,
    "PPM": 10,
    "TIFF": 11,
    "WEBP": 19,
    "AVIF": 17,
    "HEIF": 20,
}
_BYTES_OF_CMYK = 13
_BYTES_OF_OTHERS = 24


class _TooLargeError(ValueError):
    """An image of more pixels than are decoded."""


def is_image(name: str) -> bool:
    """Whether the file name ends like an image (`IMAGE_SUFFIXES`, in either case)."""
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in IMAGE_SUFFIXES


def read_file(path: Path) -> bytes:
    """The bytes of an image file; ValueError for what is no file: a pipe would be waited for."""
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise ValueError(
            f"it is {_KINDS.get(stat.S_IFMT(info.st_mode), 'no file')}, and images are read from files"
        )
    if info.st_size > MAX_BYTES:
        raise _TooLargeError(f"the file has {human_bytes(info.st_size)}, more than {human_bytes(MAX_BYTES)}")
    return path.read_bytes()


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def decode(
    data: bytes | Path, size: int, channels: int, name: str, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Read and preprocess one image file: uint8 [channels, size, size].

    DataError naming `name`, with the reason in `why`, when it is empty, damaged, of no accepted
    format, or larger than `max_pixels` or than memory allows.
    """
    from PIL import Image, UnidentifiedImageError

    raw, fix = b"", "replace the file or leave it out"
    try:
        raw = data if isinstance(data, bytes) else read_file(data)
        if not raw:
            raise ValueError("the file is empty")
        with _opened(raw) as (image, parts):
            _check_size(image.width, image.height, _cost(image), len(raw), max_pixels)
            image.load()
            return preprocess(_with_its_transparency(image, parts), size, channels)
    except UnidentifiedImageError:
        reason = git_lfs.WHY if git_lfs.is_pointer(raw) else image_formats.what(raw)
    except (_TooLargeError, Image.DecompressionBombError) as err:
        reason = str(err) if isinstance(err, _TooLargeError) else f"it has more than {max_pixels:,} pixels"
        reason += f"; make it smaller: the model sees {size} x {size} of them"
    except image_formats.LackingError as err:
        reason, fix = str(err), err.fix
    except DECODING_ERRORS as err:
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        if "\n" in reason:  # a decoder's word to its developers
            reason = image_formats.what(raw)
    raise DataError(f"cannot read image {name}", why=reason, fix=fix)


def header(data: bytes) -> tuple[str, int]:
    """Format and shorter side of an image file that `decode` has read."""
    with _opened(data) as (image, _):
        return image.format or "", min(image.size)


@contextmanager
def opened_for_texts(path: Path, formats: tuple[str, ...]) -> Iterator[Image]:
    """The image at `path` with its texts, if it is of one of `formats`; errors are DECODING_ERRORS.

    Texts beyond what Pillow reads are left out, and do not hide the others.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = needed(read_file(path), texts=True).data
        with Image.open(io.BytesIO(data), formats=formats) as image:
            yield image


@contextmanager
def _opened(raw: bytes) -> Iterator[tuple[Image, Parts]]:
    """The image of a file, not yet decoded, and what its decoder was given."""
    from PIL import Image

    formats = image_formats.decoders(raw)
    if formats == ("JXL",):  # decoded on opening
        _check_size(*jxl_size(raw), _BYTES_OF_OTHERS, len(raw), MAX_PIXELS)
    parts = needed(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(parts.data), formats=formats) as image:
            yield image, parts


def _check_size(width: int, height: int, cost: int, length: int, most: int) -> None:
    """_TooLargeError for more than `most` pixels, or where they take too much at `cost` bytes a pixel."""
    if width * height > most:
        raise _TooLargeError(f"{width} x {height} pixels are more than {most:,}")
    memory = width * height * cost + length
    if memory > MAX_MEMORY:
        raise _TooLargeError(
            f"its {width} x {height} pixels take about {human_bytes(memory)} of memory in this format"
        )


def _cost(image: Image) -> int:
    if image.mode == "CMYK":
        return _BYTES_OF_CMYK
    return _BYTES.get(image.format or "", _BYTES_OF_OTHERS)


def _with_its_transparency(image: Image, parts: Parts) -> Image:
    """`image` with a PNG's transparent grey or colour as Pillow's conversions want it.

    Pillow keeps it in samples of the file's depth, and compares 8-bit ones with it.
    """
    if image.format != "PNG" or not parts.clear:
        return image
    if len(parts.clear) == 3 and parts.depth == 16:
        return _without_colour(image, parts)
    if len(parts.clear) == 3:
        image.info["transparency"] = parts.clear
    elif parts.depth == 16:
        image.info["transparency"] = parts.clear[0]
    else:
        image.info["transparency"] = parts.clear[0] * 255 // ((1 << parts.depth) - 1)
    return image


def _without_colour(image: Image, parts: Parts) -> Image:
    """A 16-bit RGB image, transparent where all of its 48 bits are the transparent colour's.

    Pillow keeps the upper bytes of samples; the lower ones are those of the other byte order.
    """
    from PIL import Image, ImageChops

    with Image.open(io.BytesIO(parts.data), formats=("PNG",)) as low:
        low.tile = [(codec, box, at, "RGB;16L") for codec, box, at, _ in low.tile]  # type: ignore[misc]
        low.load()
        clear = None
        for half, shift in ((image, 8), (low, 0)):
            for band, value in zip(half.split(), parts.clear, strict=True):
                wanted = value >> shift & 0xFF
                same = band.point([255 if level == wanted else 0 for level in range(256)])
                clear = same if clear is None else ImageChops.darker(clear, same)
    assert clear is not None
    image.info.pop("transparency", None)
    image.putalpha(ImageChops.invert(clear))
    return image


def extent(path: Path) -> tuple[int, int]:
    """Width and height of an image file, by its header alone; one of `DECODING_ERRORS` otherwise."""
    from PIL import Image

    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no file")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = file.read(4096)
        try:
            formats = image_formats.decoders(head)
        except image_formats.LackingError as err:
            raise ValueError(str(err)) from None
        if formats == ("JXL",):  # decoded on opening
            return jxl_size(head)
        with Image.open(file, formats=formats) as image:
            return image.size


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
