"""The agreement report for a terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.report.agreement import columns, words
from guda_cli.report.agreement.columns import MetricColumn, RowColumn, View
from guda_cli.report.agreement.content import (
    AgreementReport,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import half_text, known, value_text
from guda_cli.report.agreement.standing import APART, BEHIND, BEST, CLOSE, Placed, placed
from guda_cli.report.answers.words import FORWARD_NOTE
from guda_cli.report.pieces.rich_pieces import bar, literal, titled
from guda_cli.report.pieces.text import number, printable, shorten
from guda_cli.tables import Column, Row, fitted

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MARKS = {BEST: "*", CLOSE: "≈", BEHIND: "", APART: ""}
LEGEND = "* highest top-1; ≈ not distinguishable from it (intervals overlap); ± half a 95 % interval."
_NAMED, _BESIDE = 18, 10  # columns that a name, and a value with its interval beside it, need
_AIRY = 90  # columns from which two spaces part the columns
_LONGEST = 40  # letters of a method's name
_BAR = 12


def render_terminal(report: AgreementReport, width: int) -> list[RenderableType]:
    """The report's parts, each fit for ``width`` columns; empty parts are left out."""
    parts: list[RenderableType] = [_head(report)]
    parts += [literal(f"warning: {warning}", "yellow") for warning in report.warnings]
    once = len({_cost_key(table) for table in report.tables}) == 1
    for table in report.tables:
        parts += _agreement(report, table, width)
        if not once:
            parts += _costs(table, width, f"Cost under {table.weighting}")
    if once:
        parts += _costs(report.tables[0], width, "Cost")
    return parts + _bands(report.bands, width) + _steps(report.steps, width)


def _head(report: AgreementReport) -> Text:
    from rich.text import Text

    lines = [literal(report.title, "bold"), *(literal(words.verdict(table)) for table in report.tables)]
    facts = [
        f"{name[0].lower() + name[1:] if name[1:2].islower() else name} {v}"
        for name, v in words.facts(report)
    ]
    return Text("\n").join([*lines, literal(" · ".join(facts), "dim")])


def _cost_key(table: AgreementTable) -> tuple[object, ...]:
    return tuple(sorted((row.name, repr(columns.costs(row))) for row in table.rows))


def _agreement(report: AgreementReport, table: AgreementTable, width: int) -> list[RenderableType]:
    """All rows of one weighting: value and interval side by side, or below one another if it is narrow."""
    rows = placed(table)
    shown = columns.pick(View.TABLE, [one.row for one in rows])
    beside = width >= _NAMED + _BESIDE * sum(isinstance(column, MetricColumn) for column in shown)
    heads = [(_head_of(c, report, beside), c.number) for c in shown]
    lines = []
    for index, one in enumerate(rows):
        last = index + 1 < len(rows) and one.place != APART and rows[index + 1].place == APART
        style = "bold" if one.place == BEST else "dim" if one.place == APART else ""
        cells = [literal(MARKS[one.place]), *(_cell(column, one, beside) for column in shown)]
        lines.append(Row(cells, style, last))
    drawn = _drawn(heads, lines, width)
    title = f"Agreement with the oracle under {table.weighting} ({table.unit})"
    said = [LEGEND, *words.notes(report, table)] if rows else words.notes(report, table)
    return [*titled(title, drawn), *(literal(line, _tone(line)) for line in said)]


def _head_of(column: RowColumn | MetricColumn, report: AgreementReport, wide: bool) -> str:
    if not isinstance(column, MetricColumn):
        return column.head(View.TABLE)
    title = column.title if wide else column.short or column.title
    return f"{title}\n≤{column.most(report):.2f}" if column.most else title


def _drawn(heads: Sequence[tuple[str, bool]], rows: Sequence[Row], width: int) -> Table:
    """A table of the mark, the name, then the others, each with whether it has numbers; the last go first."""
    (name, _), *others = heads
    columns = [Column(""), Column(name, cut=True)]
    columns += [Column(head, right=numeric, drop=i) for i, (head, numeric) in enumerate(others, 1)]
    return fitted(columns, rows, width, gaps=(2, 1) if width >= _AIRY else (1,))


def _tone(line: str) -> str:
    return "yellow" if words.grave(line) else "dim"


def _cell(column: RowColumn | MetricColumn, one: Placed, beside: bool) -> Text:
    if not isinstance(column, MetricColumn):
        return _plain(column, View.TABLE, one)
    from rich.text import Text

    interval = column.of(one.row.metrics)
    value, half = literal(value_text(interval)), literal(half_text(interval), "dim")
    return Text("" if beside or not half else "\n").join([value, half])


def _plain(column: RowColumn, view: View, one: Placed) -> Text:
    text = column.text(view, one)
    return literal(text if column.number else shorten(printable(text), _LONGEST))


def _costs(table: AgreementTable, width: int, title: str) -> list[RenderableType]:
    rows = [one for one in placed(table) if columns.has_costs([one.row])]
    if not rows:
        return []
    shown = [c for c in columns.pick(View.COSTS) if not isinstance(c, MetricColumn)]
    heads = [(column.head(View.COSTS), column.number) for column in shown]
    lines = [Row(["", *(_plain(column, View.COSTS, one) for column in shown)]) for one in rows]
    drawn = _drawn(heads, lines, width)
    note = f"{FORWARD_NOTE} Preparation is for all groups; speed-up is over LOGO's."
    return [*titled(title, drawn), literal(note, "dim")]


def _bands(bands: Sequence[BandPoint], width: int) -> list[RenderableType]:
    if not bands:
        return []
    shown = columns.metrics(View.BRIEF)
    heads = [Column("timesteps"), *_metric_columns(shown), Column("reliability", right=True, drop=1)]
    rows = []
    for band in bands:
        top = known(band.metrics.get("top1"))
        cells = [f"{band.t_low}–{band.t_high}", *(_pair(metric.of(band.metrics)) for metric in shown)]
        cells.append(number(band.reliability, 2))
        rows.append(Row([*cells, bar(top.value if top else None, 1.0, _BAR)]))
    drawn = fitted([*heads, Column(" " * _BAR, drop=9)], rows, width)
    return titled(f"{words.CEILING_TITLE}: the ceiling by band of timesteps (bars: top-1)", drawn)


def _metric_columns(shown: Sequence[MetricColumn]) -> list[Column]:
    return [Column(metric.title, right=True, drop=i) for i, metric in enumerate(shown)]


def _steps(steps: Sequence[StepPoint], width: int) -> list[RenderableType]:
    if not steps:
        return []
    shown = columns.metrics(View.BRIEF)
    heads = [Column("weighting", cut=True), Column("operator", cut=True), Column("steps", right=True)]
    ordered = sorted(steps, key=lambda p: (p.weighting, p.operator, p.steps))
    rows = []
    for index, point in enumerate(ordered):
        new = _begins(ordered, index)
        top = known(point.metrics.get("top1"))
        cells = [point.weighting if new else "", point.operator if new else "", f"{point.steps:,}"]
        cells += [_pair(metric.of(point.metrics)) for metric in shown]
        rows.append(Row([*cells, bar(top.value if top else None, 1.0, _BAR)]))
    drawn = fitted([*heads, *_metric_columns(shown), Column(" " * _BAR, drop=9)], rows, width)
    return titled(f"{words.STEPS_TITLE} (bars: top-1)", drawn)


def _begins(points: Sequence[StepPoint], index: int) -> bool:
    """Does another line of points begin here?"""
    if index == 0:
        return True
    one, other = points[index - 1], points[index]
    return (one.weighting, one.operator) != (other.weighting, other.operator)


def _pair(interval: Interval | None) -> str:
    return value_text(interval) + half_text(interval)
