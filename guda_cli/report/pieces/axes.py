"""Small plots as inline SVG: axes, points with intervals, lines, bands, labels that do not overlap.

Lengths are in units of the drawing, about a pixel. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guda_cli.report.pieces.markup import esc
from guda_cli.report.pieces.text import MINUS, printable, shorten

WIDTH, HEIGHT = 520.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 54.0, 22.0, 44.0
FONT = 12.0
_RADIUS = 4.5
_LONGEST = 26
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Box(NamedTuple):
    """A rectangle that labels must not cover."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The common area."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


class Axis(NamedTuple):
    """Values ``low`` to ``high`` between the positions ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value, cut at the ends."""
        low, high, inside = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, inside = math.log(low), math.log(high), math.log(inside)
        return self.start + (inside - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Where labels go: round numbers, powers of ten on a logarithmic axis."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def _linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for parts in ((1,), (1, 3), (1, 2, 5)):
        ticks = [m * 10.0**d for d in decades for m in parts]
        inside = [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if len(inside) >= 3:
            return inside
    return inside


def values_axis(values: Iterable[float], start: float, end: float) -> Axis:
    """A linear axis that holds all values with some room, its ends at round numbers; not below 0 in vain."""
    known = list(values) or [0.0, 1.0]
    room = 0.06 * (max(known) - min(known)) or 0.1
    low, high = min(known) - room, max(known) + room
    if min(known) >= 0.0:
        low = max(low, 0.0)
    ticks = _linear_ticks(low, high)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end)


def work_label(value: float) -> str:
    """A tick of a logarithmic axis: `50`, `1,000`, `10⁶`, `3×10⁶`."""
    if value < 9_999.5:
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"
    size = math.floor(math.log10(value) + 1e-9)
    lead = round(value / 10.0**size)
    power = f"10{str(size).translate(_RAISED)}"
    return power if lead == 1 else f"{lead}×{power}"


@dataclass
class Plot:
    """A drawing under construction; ``svg`` gives the result."""

    x: Axis
    y: Axis
    label: str
    parts: list[str] = field(default_factory=list)
    taken: list[Box] = field(default_factory=list)
    wanted: list[tuple[float, float, str, str]] = field(default_factory=list)
    margin: list[tuple[float, str, str]] = field(default_factory=list)

    def axes(self, x_name: str, y_name: str, ticks: Sequence[tuple[float, str]]) -> None:
        """The frame: ``ticks`` are positions and labels along x; those of y are its round numbers."""
        for tick in self.y.ticks():
            at = self.y.at(tick)
            text = f"{tick:.2g}" if abs(tick) > 1e-9 else "0"
            self.line("grid", LEFT, at, WIDTH - RIGHT, at)
            self.text(LEFT - 6, at + 4, text.replace("-", MINUS), "end", "tick")
        for position, text in ticks:
            self.line("axis", position, HEIGHT - BOTTOM, position, HEIGHT - BOTTOM + 4)
            self.text(position, HEIGHT - BOTTOM + 17, text, "middle", "tick")
        self.line("axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM)
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "middle", "name")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turn = f' transform="rotate(-90 12 {middle:.0f})"'
        self.text(12, middle, y_name, "middle", "name", turn)

    def line(self, css: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """A straight line."""
        self.parts.append(f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def text(self, x: float, y: float, text: str, anchor: str, css: str, more: str = "") -> None:
        """A line of text whose ``anchor`` (start, middle, end) is at x."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{css}" {place}{more}>{esc(text)}</text>')

    def level(self, css: str, low: float, value: float, high: float, label: str) -> None:
        """A horizontal line with its interval as a band, and its label in the right margin."""
        top, bottom, at = self.y.at(high), self.y.at(low), self.y.at(value)
        self.parts.append(
            f'<rect class="band {css}" x="{LEFT:g}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT:g}" '
            f'height="{max(bottom - top, 0):.1f}"/>'
        )
        self.line(f"level {css}", LEFT, at, WIDTH - RIGHT, at)
        self.margin.append((at, label, css))

    def point(self, css: str, x: float, y: tuple[float, float, float], title: str, name: str = "") -> None:
        """A marker at position x with value, low and high of ``y``; ``name`` is written beside it."""
        at, low, high = (self.y.at(value) for value in y)
        bar = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
        self.parts.append(
            f'<g class="point {css}"><title>{esc(title)}</title><path class="error" d="{bar}"/>'
            f'<circle cx="{x:.1f}" cy="{at:.1f}" r="{_RADIUS:g}"/></g>'
        )
        self.taken.append(Box(x - 6, at - 6, x + 6, at + 6))
        self.taken.append(Box(x - 3, min(low, high), x + 3, max(low, high)))
        if name:
            self.wanted.append((x, at, name, css))

    def reach(self, css: str, left: float, right: float, value: float) -> None:
        """A horizontal piece of line that labels keep off."""
        at = self.y.at(value)
        self.line(f"reach {css}", left, at, right, at)
        self.taken.append(Box(left, at - 2, right, at + 2))

    def path(self, css: str, points: Sequence[tuple[float, float]]) -> None:
        """A line through positions."""
        if len(points) > 1:
            steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            self.parts.append(f'<path class="series {css}" d="M{steps}"/>')

    def svg(self) -> str:
        """The finished drawing, its labels placed where they cover least."""
        for x, y, name, css in sorted(self.wanted, key=lambda w: (w[1], w[0])):
            self._name(x, y, shorten(printable(name), _LONGEST), css)
        self.wanted = []
        self.column(WIDTH - RIGHT + 4, self.margin, "level-label")
        self.margin = []
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="{esc(self.label)}">{"".join(self.parts)}</svg>'
        )

    def column(self, x: float, labels: Sequence[tuple[float, str, str]], kind: str = "name-of") -> None:
        """Labels (height, text, class) below one another at x, each as near its height as they allow."""
        places = spread([at for at, _, _ in labels], FONT + 2)
        for y, (_, label, css) in zip(places, labels, strict=True):
            self.text(x, y + 4, shorten(printable(label), _LONGEST), "start", f"{kind} {css}")

    def _name(self, x: float, y: float, name: str, css: str) -> None:
        width = text_width(name)
        spots = list(_spots(x, y, width))
        cost = [self._covered(box) + 0.02 * i for i, (_, _, box) in enumerate(spots)]
        anchor, base, box = spots[cost.index(min(cost))]
        edge = box.left if anchor == "start" else box.right
        if abs(base - 4 - y) > 9:
            self.line(f"leader {css}", x, y, edge, base - 4)
        self.text(edge, base, name, anchor, f"name-of {css}")
        self.taken.append(box)

    def _covered(self, box: Box) -> float:
        frame = Box(LEFT, TOP - 6, WIDTH - RIGHT, HEIGHT - BOTTOM)
        outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(frame)
        return sum(box.overlap(other) for other in self.taken) + 20 * outside


def _spots(x: float, y: float, width: float) -> Iterable[tuple[str, float, Box]]:
    """Anchor, baseline and box of the places a label may take, the best first."""
    for away in (0, 10, 15, 20, 26, 32, 40, 48, 58, 70, 84, 100):
        for shift in (away, -away) if away else (0,):
            base = y + 4 + shift
            for gap in (8, 16) if away else (8,):
                yield "start", base, Box(x + gap, base - FONT, x + gap + width, base + 3)
                yield "end", base, Box(x - gap - width, base - FONT, x - gap, base + 3)


def text_width(text: str) -> float:
    """About how wide a text is in the plot's font."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return FONT * (0.56 * (len(text) - wide) + wide)


def spread(positions: Sequence[float], least: float = 10.0) -> list[float]:
    """The positions moved as little as it takes to be ``least`` apart, in the order given."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    clusters: list[list[int]] = []
    for i in order:
        clusters.append([i])
        while (
            len(clusters) > 1
            and _ends(clusters[-2], positions, least)[1] + least > (_ends(clusters[-1], positions, least)[0])
        ):
            last = clusters.pop()
            clusters[-1].extend(last)
    out = list(positions)
    for cluster in clusters:
        start = _ends(cluster, positions, least)[0]
        for place, i in enumerate(cluster):
            out[i] = start + place * least if len(cluster) > 1 else positions[i]
    return out


def _ends(cluster: Sequence[int], positions: Sequence[float], least: float) -> tuple[float, float]:
    centre = sum(positions[i] for i in cluster) / len(cluster)
    half = (len(cluster) - 1) / 2 * least
    return centre - half, centre + half
