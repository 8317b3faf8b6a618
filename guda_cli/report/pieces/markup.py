"""Small pieces of HTML: escaping, tables, thumbnails as data, bars as SVG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from guda_cli.report.answers.content import GroupScore, Pixels
from guda_cli.report.pieces.text import finite, printable

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
) -> str:
    """A table of ready-made HTML cells; the first of each row is its head. ``quiet`` hides the caption."""
    heads = "".join(f'<th scope="col"{_classes(c)}>{esc(c.head)}</th>' for c in columns)
    body = "".join(_row(columns, row) for row in rows)
    tail = f"<tfoot>{''.join(_row(columns, row) for row in foot)}</tfoot>" if foot else ""
    hidden = ' class="sr"' if quiet else ""
    kind = f' class="{css}"' if css else ""
    return (
        f"<table{kind}><caption{hidden}>{esc(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody>{tail}</table>"
    )


def _classes(column: Column) -> str:
    names = " ".join(filter(None, ("num" if column.numeric else "", column.css)))
    return f' class="{names}"' if names else ""


def _row(columns: Sequence[Column], cells: Sequence[str]) -> str:
    head, *rest = cells
    tds = "".join(
        f'<td class="num">{cell}</td>' if column.numeric else f"<td>{cell}</td>"
        for column, cell in zip(columns[1:], rest, strict=True)
    )
    return f'<tr><th scope="row">{head}</th>{tds}</tr>'


def scrolling(content: str, label: str) -> str:
    """Content that may be wider than the page, reachable by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def thumbnail(
    pixels: Pixels | None, name: str, *, most: int, css: str, colours: int | None = None, what: str = "query"
) -> str:
    """A query image, see `picture`, or nothing."""
    if pixels is None:
        return ""
    return picture(pixels, f"{what} image {name}", most=most, css=css, colours=colours)


def picture(pixels: Pixels, alt: str, *, most: int, css: str, colours: int | None = None) -> str:
    """The image as a PNG data URI of at most ``most`` pixels a side; ``alt`` says in words what it is."""
    from PIL import Image

    from guda_cli.report.answers.maps import to_image

    image = to_image(pixels)
    if max(image.size) > most:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
    if pixels.shape[0] == 1:
        image = image.convert("L")
    elif colours:
        image = image.quantize(colours)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<img class="{css}" src="data:image/png;base64,{data}" alt="{esc(alt)}">'


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
    steady = 'vector-effect="non-scaling-stroke"'
    parts = [f'<line class="zero" {steady} x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{_HEIGHT:g}"/>']
    if score is not None:
        left, right = sorted((zero, shared.place(score)))
        kind = ("pos" if score >= 0 else "neg") + (" pale" if entry.stands_out is False else "")
        parts.append(f'<rect class="{kind}" x="{left:.1f}" y="2" width="{right - left:.1f}" height="10"/>')
    low, high = finite(entry.low), finite(entry.high)
    if low is not None and high is not None:
        a, b = shared.place(low), shared.place(high)
        path = f"M{a:.1f} 7H{b:.1f}M{a:.1f} 4V10M{b:.1f} 4V10"
        parts.append(f'<path class="error" {steady} d="{path}"/>')
    return (
        f'<svg class="bar" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )
