"""Small pieces of HTML: escaping, tables, pictures as data, bars as SVG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from guda_cli.report.answers.content import GroupScore, Pixels
from guda_cli.report.pieces.text import finite, printable, shorten

if TYPE_CHECKING:
    from PIL import Image

COARSE = 96
"""Pixels a side up to which a picture is enlarged as squares."""
_QUALITY = 88
_WIDTH = 200.0
_HEIGHT = 14.0


def esc(text: object) -> str:
    """User-supplied text, harmless in text and in quoted attributes."""
    return html.escape(printable(text), quote=True)


class Column(NamedTuple):
    """A table column: its head and whether it holds numbers."""

    head: str
    numeric: bool = False
    css: str = ""


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    foot: Sequence[Sequence[str]] = (),
    css: str = "",
    quiet: bool = False,
    sort: bool = False,
    keep: int = 0,
) -> str:
    """A table of ready-made HTML cells; the first of each row is its head. ``quiet`` hides the caption.

    ``sort`` lets the page's script sort it by a column; the first ``keep`` rows it never folds away.
    """
    heads = "".join(f'<th scope="col"{_classes(c)}>{esc(c.head)}</th>' for c in columns)
    body = "".join(_row(columns, row, "keep" if i < keep else "") for i, row in enumerate(rows))
    tail = f"<tfoot>{''.join(_row(columns, row) for row in foot)}</tfoot>" if foot else ""
    hidden = ' class="sr"' if quiet else ""
    kind = (f' class="{css}"' if css else "") + (" data-sort" if sort else "")
    return (
        f"<table{kind}><caption{hidden}>{esc(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody>{tail}</table>"
    )


def _classes(column: Column) -> str:
    names = " ".join(filter(None, ("num" if column.numeric else "", column.css)))
    return f' class="{names}"' if names else ""


def _row(columns: Sequence[Column], cells: Sequence[str], css: str = "") -> str:
    head, *rest = cells
    kind = f' class="{css}"' if css else ""
    tds = "".join(
        f'<td class="num">{cell}</td>' if column.numeric else f"<td>{cell}</td>"
        for column, cell in zip(columns[1:], rest, strict=True)
    )
    return f'<tr{kind}><th scope="row">{head}</th>{tds}</tr>'


def scrolling(content: str, label: str) -> str:
    """Content that may be wider than the page, reachable by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def clipped(text: str, length: int) -> str:
    """User-supplied text of at most so many characters; the whole of it is the title where it is cut."""
    whole, shown = esc(text), shorten(printable(text), length)
    return f'<span title="{whole}">{esc(shown)}</span>' if shown != printable(text) else whole


def thumbnail(pixels: Pixels | None, name: str, *, most: int, css: str, what: str = "query") -> str:
    """A query image, see `picture`, or nothing."""
    if pixels is None:
        return ""
    return picture(pixels, f"{what} image {name}", most=most, css=css)


def picture(pixels: Pixels, alt: str, *, most: int, css: str) -> str:
    """The image as a data URI of at most ``most`` pixels a side; ``alt`` says in words what it is.

    What need not be made smaller is there pixel for pixel, as PNG, and of class ``crisp`` up to `COARSE`;
    otherwise it is a PNG or a JPEG, whichever takes fewer bytes.
    """
    from PIL import Image

    from guda_cli.report.answers.maps import to_image

    image = to_image(pixels)
    reduced = max(image.size) > most
    if reduced:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
    if pixels.shape[0] == 1:
        image = image.convert("L")
    files = {"png": _encoded(image, "PNG", optimize=True)}
    if reduced:
        files["jpeg"] = _encoded(image, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    kind = min(files, key=lambda name: len(files[name]))
    data = base64.b64encode(files[kind]).decode("ascii")
    crisp = "" if reduced or max(image.size) > COARSE else " crisp"
    return f'<img class="{css}{crisp}" src="data:image/{kind};base64,{data}" alt="{esc(alt)}">'


def _encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


class Span(NamedTuple):
    """The values that a group of bars shares as its left and right end; zero lies inside."""

    left: float
    right: float

    def place(self, value: float) -> float:
        """The horizontal position of a value in the drawing."""
        inside = min(max(value, self.left), self.right)
        return (inside - self.left) / (self.right - self.left) * (_WIDTH - 4) + 2


def span(entries: Sequence[GroupScore]) -> Span:
    """A span that holds every score, its interval and zero."""
    known = [finite(v) for e in entries for v in (e.score, e.low, e.high)]
    values = [v for v in known if v is not None]
    left, right = min([0.0, *values]), max([0.0, *values])
    return Span(left, right) if right > left and math.isfinite(right - left) else Span(-1.0, 1.0)


def bar(entry: GroupScore, shared: Span) -> str:
    """One score as a bar from zero with its interval; decoration only, the numbers stand beside it."""
    score = finite(entry.score)
    zero = shared.place(0.0)
    parts = [f'<path class="zero" d="M{zero:.1f} 0V{_HEIGHT:g}"/>']
    if score is not None:
        left, right = sorted((zero, shared.place(score)))
        kind = ("pos" if score >= 0 else "neg") + (" pale" if entry.stands_out is False else "")
        parts.append(f'<rect class="{kind}" x="{left:.1f}" y="2" width="{right - left:.1f}" height="10"/>')
    low, high = finite(entry.low), finite(entry.high)
    if low is not None and high is not None:
        a, b = shared.place(low), shared.place(high)
        path = f"M{a:.1f} 7H{b:.1f}M{a:.1f} 4V10M{b:.1f} 4V10"
        parts.append(f'<path class="error" d="{path}"/>')
    return (
        f'<svg class="bar" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )
