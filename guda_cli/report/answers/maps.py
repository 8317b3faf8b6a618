"""Per-pixel delta-ELBO maps over the image: where in it a group matters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guda_cli.outfile import MARK, PNG_MARK
from guda_cli.report.answers.content import Map, Pixels
from guda_cli.report.pieces.text import printable, significant

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

BLUE = (28, 108, 214)
RED = (214, 40, 32)
STRENGTH = 0.9
TILE = 208
PAGE = 1400
GAP = 14
INK = (24, 24, 24)

Font = Any


def grey(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Luminance ``[H, W]`` in 0..255 of uint8 ``[C, H, W]``, C = 1, 3 or 4 (the last is dropped)."""
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        raise ValueError(f"pixels must be [C, H, W] with 1, 3 or 4 channels, not {pixels.shape}")
    values = pixels.astype(np.float64)
    if pixels.shape[0] == 1:
        return np.asarray(values[0])
    return np.asarray(np.tensordot(np.array([0.299, 0.587, 0.114]), values[:3], axes=1))


def to_image(pixels: Pixels) -> Image.Image:
    """Uint8 ``[C, H, W]`` as an RGB image."""
    from PIL import Image

    grey(pixels[:, :1, :1])
    rgb = np.repeat(pixels, 3, axis=0) if pixels.shape[0] == 1 else pixels[:3]
    return Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))


def overlay(pixels: Pixels, value_map: Map, *, limit: float, scale: int) -> Image.Image:
    """The map over the greyscale image: blue below zero, red above, the image alone at zero.

    Values at or beyond ``limit`` have full strength. The map may have another size than the image.
    """
    from PIL import Image

    if not limit > 0:
        raise ValueError(f"limit must be positive, not {limit}")
    height, width = pixels.shape[1] * scale, pixels.shape[2] * scale
    base = np.asarray(_enlarge(grey(pixels), width, height))
    values = np.clip(np.nan_to_num(np.asarray(value_map, np.float64)) / limit, -1, 1)
    values = np.asarray(_enlarge(values, width, height))
    # Middle greys only, so that the colour stays visible on black and on white.
    shade = (56 + base * (232 - 56) / 255)[..., None]
    mixed = shade + STRENGTH * np.abs(values)[..., None] * (_hue(values) - shade)
    return Image.fromarray(np.round(mixed).clip(0, 255).astype(np.uint8))


def _hue(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values[..., None] < 0, np.array(BLUE, np.float64), np.array(RED, np.float64))


def _enlarge(values: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.float64]:
    """Nearest neighbour, exact for whole factors."""
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    return np.asarray(values[rows[:, None], columns[None, :]])


def shared_limit(maps: Sequence[Map]) -> float:
    """Where the colours saturate: at the 99.5th percentile of all sizes, lest one pixel pale the rest."""
    sizes = np.concatenate([np.abs(np.asarray(m, np.float64)).ravel() for m in maps] or [np.zeros(1)])
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(sizes, 0.995)) if sizes.size else 0.0
    return limit or float(sizes.max(initial=0.0)) or 1.0


def panel(
    pixels: Pixels, maps: Sequence[tuple[str, Map]], caption: str, scale: int | None = None
) -> Image.Image:
    """The query on the left, then one overlay a group with its title, with one colour scale for all."""
    from PIL import Image, ImageDraw

    height, width = pixels.shape[1:]
    scale = scale or max(1, round(TILE / max(height, width)))
    limit = shared_limit([m for _, m in maps])
    picture = to_image(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    tiles = [("query", picture)]
    tiles += [(title, overlay(pixels, m, limit=limit, scale=scale)) for title, m in maps]
    cell = max(width * scale, 96)
    font = _font(max(14, min(24, cell // 15)))
    line = _line_height(font)
    columns = min(len(tiles), max(2, (PAGE - GAP) // (cell + GAP)))
    rows = -(-len(tiles) // columns)
    row_height = line + 4 + height * scale + GAP
    page_width = max(GAP + columns * (cell + GAP), 420)
    lines = _wrapped(caption, font, page_width - 2 * GAP)
    legend_top = GAP + rows * row_height
    page = Image.new("RGB", (page_width, legend_top + 3 * line + line * len(lines) + GAP), "white")
    draw = ImageDraw.Draw(page)
    for index, (title, tile) in enumerate(tiles):
        x = GAP + index % columns * (cell + GAP)
        y = GAP + index // columns * row_height
        draw.text((x, y), _fitted(title, font, cell), fill=INK, font=font)
        page.paste(tile, (x, y + line + 4))
    _legend(page, draw, legend_top, limit, font)
    for index, words in enumerate(lines):
        draw.text((GAP, legend_top + 3 * line - 4 + index * line), words, fill=INK, font=font)
    return page


def to_png(image: Image.Image) -> bytes:
    """A PNG file that says who made it."""
    from PIL.PngImagePlugin import PngInfo

    text, buffer = PngInfo(), io.BytesIO()
    text.add_text(PNG_MARK, MARK)
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _legend(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, limit: float, font: Font) -> None:
    """The colour bar, its ends and middle labelled."""
    line = _line_height(font)
    span = min(page.width - 2 * GAP, 360)
    middle = np.full((1, 1, span), 128, np.uint8)
    ramp = np.linspace(-1, 1, span)[None, :]
    bar = overlay(middle, ramp, limit=1.0, scale=1).resize((span, line))
    page.paste(bar, (GAP, top))
    for label, at, anchor in (
        (significant(-limit), 0.0, "la"),
        ("0", 0.5, "ma"),
        (f"+{significant(limit)}", 1.0, "ra"),
    ):
        _text_at(draw, (GAP + round(at * span), top + line + 2), label, anchor, font)


def _text_at(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, anchor: str, font: Font) -> None:
    shown = _encodable(text, font)
    shift = {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * draw.textlength(shown, font=font)
    draw.text((at[0] - shift, at[1]), shown, fill=INK, font=font)


def _font(size: int) -> Font:
    """PIL's own font; its small bitmap one where PIL was built without FreeType."""
    from PIL import ImageFont, features

    return ImageFont.load_default(size) if features.check("freetype2") else ImageFont.load_default()


def _line_height(font: Font) -> int:
    return int(font.getbbox("Ágq|")[3]) + 5


def _encodable(text: str, font: Font) -> str:
    """PIL's fonts have no real minus sign everywhere, and the bitmap one only Latin-1."""
    plain = printable(text).replace("\u2212", "-")
    if hasattr(font, "path"):
        return plain
    return plain.replace("…", "...").encode("latin-1", "replace").decode("latin-1")


def _fitted(text: str, font: Font, width: int) -> str:
    shown = _encodable(text, font)
    if font.getlength(shown) <= width:
        return shown
    while shown and font.getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    lines: list[str] = []
    for word in _encodable(" ".join(text.split()), font).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(_fitted(word, font, width))
    return lines
