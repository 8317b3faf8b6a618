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
from guda_cli.report.pieces.rich_pieces import bar, literal, ruled, titled
from guda_cli.report.pieces.text import number, printable, shorten

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
    """The report's parts, each fit for ``width`` columns (80 or more); empty parts are left out."""
    parts: list[RenderableType] = [_head(report)]
    parts += [literal(f"warning: {warning}", "yellow") for warning in report.warnings]
    once = len({_cost_key(table) for table in report.tables}) == 1
    for table in report.tables:
        parts += _agreement(report, table, width)
        if not once:
            parts += _costs(table, width, f"Cost under {table.weighting}")
    if once:
        parts += _costs(report.tables[0], width, "Cost")
    return parts + _bands(report.bands) + _steps(report.steps)


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
    drawn = _empty_table([(_head_of(c, report, beside), c.number) for c in shown], width)
    for index, one in enumerate(rows):
        last = index + 1 < len(rows) and one.place != APART and rows[index + 1].place == APART
        name, *cells = [_cell(column, one, beside) for column in shown]
        style = "bold" if one.place == BEST else "dim" if one.place == APART else ""
        drawn.add_row(literal(MARKS[one.place]), name, *cells, style=style, end_section=last)
    title = f"Agreement with the oracle under {table.weighting} ({table.unit})"
    lines = [LEGEND, *words.notes(report, table)] if rows else words.notes(report, table)
    return [*titled(title, drawn), *(literal(line, _tone(line)) for line in lines)]


def _head_of(column: RowColumn | MetricColumn, report: AgreementReport, wide: bool) -> str:
    if not isinstance(column, MetricColumn):
        return column.head(View.TABLE)
    title = column.title if wide else column.short or column.title
    return f"{title}\n≤{column.most(report):.2f}" if column.most else title


def _empty_table(heads: Sequence[tuple[str, bool]], width: int) -> Table:
    """A table without rows: the mark, the name, then the other heads, each with whether it has numbers."""
    from rich.text import Text

    (name, _), *others = heads
    drawn = ruled("", name)
    drawn.padding = (0, 1 if width >= _AIRY else 0, 0, 0)
    for head, numeric in others:
        drawn.add_column(Text(head), justify="right" if numeric else "left", no_wrap=numeric)
    return drawn


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
    drawn = _empty_table([(column.head(View.COSTS), column.number) for column in shown], width)
    for one in rows:
        drawn.add_row("", *(_plain(column, View.COSTS, one) for column in shown))
    note = f"{FORWARD_NOTE} Preparation is for all groups; speed-up is over LOGO's."
    return [*titled(title, drawn), literal(note, "dim")]


def _bands(bands: Sequence[BandPoint]) -> list[RenderableType]:
    if not bands:
        return []
    shown = columns.metrics(View.BRIEF)
    drawn = ruled("timesteps", right=(*(metric.title for metric in shown), "reliability"))
    drawn.add_column("", no_wrap=True)
    for band in bands:
        top = known(band.metrics.get("top1"))
        cells = [f"{band.t_low}–{band.t_high}"]
        cells += [_pair(metric.of(band.metrics)) for metric in shown]
        cells.append(number(band.reliability, 2))
        drawn.add_row(*map(literal, cells), bar(top.value if top else None, 1.0, _BAR))
    return titled(f"{words.CEILING_TITLE}: the ceiling by band of timesteps (bars: top-1)", drawn)


def _steps(steps: Sequence[StepPoint]) -> list[RenderableType]:
    if not steps:
        return []
    shown = columns.metrics(View.BRIEF)
    drawn = ruled("weighting", "operator", right=("steps", *(metric.title for metric in shown)))
    drawn.add_column("", no_wrap=True)
    ordered = sorted(steps, key=lambda p: (p.weighting, p.operator, p.steps))
    for index, point in enumerate(ordered):
        new = _begins(ordered, index)
        top = known(point.metrics.get("top1"))
        cells = [point.weighting if new else "", point.operator if new else "", f"{point.steps:,}"]
        cells += [_pair(metric.of(point.metrics)) for metric in shown]
        drawn.add_row(*map(literal, cells), bar(top.value if top else None, 1.0, _BAR))
    return titled(f"{words.STEPS_TITLE} (bars: top-1)", drawn)


def _begins(points: Sequence[StepPoint], index: int) -> bool:
    """Does another line of points begin here?"""
    if index == 0:
        return True
    one, other = points[index - 1], points[index]
    return (one.weighting, one.operator) != (other.weighting, other.operator)


def _pair(interval: Interval | None) -> str:
    return value_text(interval) + half_text(interval)
