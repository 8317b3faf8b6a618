"""The agreement report's plots: agreement against cost, the ceiling against t, agreement against steps."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.agreement import words
from guda_cli.report.agreement.columns import title_of
from guda_cli.report.agreement.content import (
    CEILING,
    RANDOM,
    AgreementReport,
    AgreementRow,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import known, range_text, value_text, work_text
from guda_cli.report.agreement.standing import APART, BEHIND, BEST, CLOSE, Placed, of_kind, placed
from guda_cli.report.pieces.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Plot,
    spread,
    text_width,
    values_axis,
    work_label,
)
from guda_cli.report.pieces.text import finite, number, printable, shorten

SHOWN = ("top1", "ndcg@3")
SERIES = 6  # colours of lines before they repeat
_LONGEST = 20
_FREE = 34.0  # width of the column of methods without preparation
_KIND = {BEST: "p-best", CLOSE: "p-close", BEHIND: "p-behind"}
_FLOOR, _FRAME = HEIGHT - BOTTOM, (LEFT, WIDTH - RIGHT)


def priced(table: AgreementTable) -> list[Placed]:
    """The methods that a plot against cost can show: those whose preparation cost is known."""
    return [p for p in placed(table) if p.place != APART and finite(p.row.prepare_forwards) is not None]


def cost_plot(report: AgreementReport, table: AgreementTable, metric: str) -> str:
    """A metric against preparation in forward-equivalents; nothing where no method's cost is known."""
    rows = [(p, found) for p in priced(table) if (found := known(p.row.metrics.get(metric)))]
    if not rows:
        return ""
    levels = _levels(table, metric)
    paid = [float(p.row.prepare_forwards or 0) for p, _ in rows]
    axis = _cost_axis([c for c in paid if c > 0], finite(report.logo_forwards), min(paid) <= 0)
    y = values_axis(_reach([found for _, found in rows] + [level for _, level, _ in levels]), _FLOOR, TOP)
    plot = Plot(axis, y, f"{title_of(metric)} against preparation cost under {table.weighting}")
    ticks = [(axis.at(t), work_label(t)) for t in axis.ticks()]
    ticks += [(LEFT + _FREE / 2, "0")] if min(paid) <= 0 else []
    plot.axes("preparation, forward-equivalents (log scale)", title_of(metric), ticks)
    _draw_levels(plot, levels)
    logo = finite(report.logo_forwards)
    if logo:
        plot.line("logo", axis.at(logo), TOP, axis.at(logo), _FLOOR)
        plot.text(axis.at(logo), TOP - 7, "LOGO", "middle", "tick")
    places = spread([axis.at(c) if c > 0 else LEFT + _FREE / 2 for c in paid])
    for x, (p, found) in zip(places, rows, strict=True):
        work = f"{work_text(p.row.prepare_forwards)} forward-equivalents"
        plot.point(_KIND[p.place], x, _ordered(found), _title(p.row.name, metric, found, work), p.row.name)
    return plot.svg()


def _cost_axis(paid: Sequence[float], logo: float | None, free: bool) -> Axis:
    values = [*paid, *([logo] if logo else [])] or [1.0, 10.0]
    low, high = min(values) / 1.8, max(values) * 1.8
    if high / low < 30:
        low, high = low / 2, high * 2
    return Axis(low, high, LEFT + (_FREE if free else 0), WIDTH - RIGHT, log=True)


def _levels(table: AgreementTable, metric: str) -> list[tuple[str, Interval, str]]:
    """The horizontal lines: random and the ceiling, where there are such rows."""
    kinds = ((RANDOM, "l-random", "random"), (CEILING, "l-ceiling", "ceiling"))
    rows = [(css, of_kind(table, kind), label) for kind, css, label in kinds]
    return [
        (css, found, label) for css, row, label in rows if row and (found := known(row.metrics.get(metric)))
    ]


def _draw_levels(plot: Plot, levels: Sequence[tuple[str, Interval, str]]) -> None:
    for css, level, label in levels:
        plot.level(css, level.low, level.value, level.high, label)


def _reach(intervals: Sequence[Interval]) -> list[float]:
    return [end for interval in intervals for end in interval]


def _ordered(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _title(name: str, metric: str, found: Interval, where: str) -> str:
    return f"{printable(name)}: {title_of(metric)} {value_text(found)} ({range_text(found)}), {where}"


def bands_plot(bands: Sequence[BandPoint], groups: int) -> str:
    """The ceiling's top-1 and the oracle's reliability by band of timesteps; nothing without bands."""
    tops = [(b, found) for b in bands if (found := known(b.metrics.get("top1")))]
    reliable = [(b, r) for b in bands if (r := finite(b.reliability)) is not None]
    if not tops and not reliable:
        return ""
    x = Axis(min(b.t_low for b in bands) - 1, max(b.t_high for b in bands), *_FRAME)
    values = _reach([found for _, found in tops]) + [r for _, r in reliable]
    y = values_axis([*values, 0.0, 1.0 / max(groups, 1), words.TRUST], _FLOOR, TOP)
    plot = Plot(x, y, "Ceiling and reliability by band of timesteps")
    plot.axes(
        "timestep t (noise grows to the right)",
        "top-1, reliability",
        [(x.at(t), f"{t:,.0f}") for t in x.ticks()],
    )
    for css, level, label in (
        ("l-random", 1.0 / max(groups, 1), "chance"),
        ("l-trust", words.TRUST, f"r = {words.TRUST:g}"),
    ):
        plot.level(css, level, level, level, label)
    for css, name, series in (
        ("s1", "top-1", [(b, _ordered(found)) for b, found in tops]),
        ("s2", "reliability", [(b, (r, r, r)) for b, r in reliable]),
    ):
        shift = 3.0 if css == "s1" else -3.0
        for b, (value, low, high) in series:
            plot.reach(css, x.at(b.t_low - 1), x.at(b.t_high), value)
            title = f"t {b.t_low} to {b.t_high}: {name} {number(value, 2)}"
            last = b is max(series, key=lambda item: item[1][0])[0]
            plot.point(
                css,
                x.at((b.t_low - 1 + b.t_high) / 2) + shift,
                (value, low, high),
                title,
                name if last else "",
            )
    return plot.svg()


def steps_plot(points: Sequence[StepPoint], table: AgreementTable | None, metric: str) -> str:
    """A metric against unlearning steps under one weighting, a line an operator.

    The ceiling is read from ``table``; nothing where there are no points.
    """
    rows = [(p, found) for p in points if p.steps > 0 and (found := known(p.metrics.get(metric)))]
    if not rows:
        return ""
    levels = _levels(table, metric) if table else []
    counts = sorted({p.steps for p, _ in rows})
    operators = list(dict.fromkeys(p.operator for p, _ in rows))
    room = min(max(text_width(shorten(name, _LONGEST)) for name in operators) + 14, 150.0)
    x = Axis(counts[0] / 1.2, counts[-1] * 1.1, LEFT, WIDTH - RIGHT - room, log=True)
    y = values_axis(_reach([found for _, found in rows] + [level for _, level, _ in levels]), _FLOOR, TOP)
    plot = Plot(x, y, f"{title_of(metric)} against unlearning steps under {rows[0][0].weighting}")
    ticks = _apart([(x.at(c), f"{c:,}") for c in counts])
    plot.axes("unlearning steps (log scale)", title_of(metric), ticks)
    _draw_levels(plot, levels)
    ends = []
    for index, operator in enumerate(operators):
        css = f"s{index % SERIES + 1}"
        shift = (index - (len(operators) - 1) / 2) * 7
        mine = sorted(((p, f) for p, f in rows if p.operator == operator), key=lambda item: item[0].steps)
        plot.path(css, [(x.at(p.steps) + shift, y.at(f.value)) for p, f in mine])
        for p, found in mine:
            title = _title(operator, metric, found, f"{p.steps:,} steps")
            plot.point(css, x.at(p.steps) + shift, _ordered(found), title)
        ends.append((y.at(mine[-1][1].value), shorten(operator, _LONGEST), css))
    plot.column(x.end + 12, ends)
    return plot.svg()


def _apart(ticks: Sequence[tuple[float, str]], least: float = 30.0) -> list[tuple[float, str]]:
    """The ticks without those whose labels would touch the one before."""
    out: list[tuple[float, str]] = []
    for tick in ticks:
        if not out or tick[0] - out[-1][0] >= least:
            out.append(tick)
    return out


def uncosted(table: AgreementTable) -> list[AgreementRow]:
    """The methods that no plot against cost shows, for their cost is not known."""
    shown = {id(p.row) for p in priced(table)}
    return [p.row for p in placed(table) if p.place != APART and id(p.row) not in shown]
