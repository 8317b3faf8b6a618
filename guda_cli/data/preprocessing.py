"""From a decoded image to the pixels a model sees, strip by strip: a large one needs little beside itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guda_cli.data.dataset import Pixels
from guda_cli.data.exif import orientation_of

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

_STRIP = 1 << 22  # pixels that are converted at once


def preprocess(image: Image, size: int, channels: int) -> Pixels:
    """`image` as uint8 [channels, size, size], 0..255.

    In this order: EXIF orientation; centre crop to a square; transparency composited on white;
    conversion to RGB (channels 3) or luma "L" (channels 1), 16-bit greys divided by 257 and rounded;
    resize. The resize is nothing when the square is already `size`, the mean of each block (halves up)
    when its side is a whole multiple of `size`, Lanczos otherwise. Animations count by their first frame.
    ValueError for floating-point and 32-bit images, whose range is unknown.
    """
    square = _Square(image, "L" if channels == 1 else "RGB")
    pixels = square.lanczos(size) if square.side % size else square.means(size)
    if channels == 1:
        return pixels[None].copy()
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class _Square:
    """The upright centre square of an image, opaque and in one mode, read in strips of rows."""

    def __init__(self, image: Image, mode: str) -> None:
        if image.mode == "F":
            raise ValueError("floating-point images have no known range; save it with 8 or 16 bits")
        if image.mode == "I" and image.format == "TIFF":
            raise ValueError("32-bit images have no known range; save it with 8 or 16 bits")
        self.side = min(image.size)
        if self.side < 1:
            raise ValueError("the image has no pixels")
        self._image, self._mode, self._turned = image, mode, orientation_of(image)

    def lanczos(self, size: int) -> Pixels:
        """uint8 [size, size] or [size, size, 3], resampled."""
        from PIL import Image

        step = max(1, _STRIP // self.side)
        if step >= self.side:
            whole = self._rows(0, self.side)
        else:
            whole = Image.new(self._mode, (self.side, self.side))
            for top in range(0, self.side, step):
                whole.paste(self._rows(top, min(self.side, top + step)), (0, top))
        return np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)

    def means(self, size: int) -> Pixels:
        """uint8 [size, size] or [size, size, 3], the mean of each block; the side is a multiple of `size`."""
        factor = self.side // size
        step = max(1, _STRIP // (self.side * factor))
        parts = []
        for top in range(0, size, step):
            rows = self._rows(top * factor, min(size, top + step) * factor)
            pixels = np.asarray(rows, dtype=np.uint8)
            parts.append(pixels if factor == 1 else _box(pixels, factor))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows(self, top: int, bottom: int) -> Image:
        """Rows [top, bottom) of the square, plain."""
        image = self._image
        width, height = image.size if self._turned < 5 else image.size[::-1]
        left, above = (width - self.side) // 2, (height - self.side) // 2
        box = _stored_box((left, above + top, left + self.side, above + bottom), image.size, self._turned)
        part = image if box == (0, 0, *image.size) else image.crop(box)
        return _plain(part if self._turned == 1 else part.transpose(_method(self._turned)), self._mode)


def _stored_box(
    box: tuple[int, int, int, int], size: tuple[int, int], turned: int
) -> tuple[int, int, int, int]:
    """Where the box (left, top, right, bottom) of the upright image lies in the stored one."""
    left, top, right, bottom = box
    if turned >= 5:  # rows are columns
        left, top, right, bottom = top, left, bottom, right
    width, height = size
    if turned in (2, 3, 7, 8):
        left, right = width - right, width - left
    if turned in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _method(turned: int) -> Transpose:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }[turned]


def _plain(image: Image, mode: str) -> Image:
    """`image` opaque and in `mode`, "L" or "RGB"."""
    from PIL import Image

    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image) -> Image:
    """8-bit greys; those of the transparent value, where there is one, are white."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit images have no known range; save it with 8 or 16 bits")
    grey = ((values + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


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
