"""The agreement report for a terminal, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guda_cli.report.agreement import words
from guda_cli.report.agreement.content import (
    METRICS,
    AgreementReport,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import half_text, known, speedup_text, time_text, value_text, work_text
from guda_cli.report.agreement.words import APART, BEHIND, BEST, CLOSE
from guda_cli.report.answers.words import FORWARD_NOTE
from guda_cli.report.pieces.rich_pieces import bar, literal, ruled, titled
from guda_cli.report.pieces.text import number, printable, shorten

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MARKS = {BEST: "*", CLOSE: "≈", BEHIND: "", APART: ""}
LEGEND = "* highest top-1; ≈ not distinguishable from it (intervals overlap); ± half a 95 % interval."
_ONE_LINE = 100  # columns from which each interval stands beside its value
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
    return tuple(sorted((row.name, repr(words.costs(row))) for row in table.rows))


def _agreement(report: AgreementReport, table: AgreementTable, width: int) -> list[RenderableType]:
    """All rows of one weighting: value and interval side by side, or below one another if it is narrow."""
    beside = width >= _ONE_LINE
    heads = [f"RBO\n≤{report.rbo_max:.2f}" if m == "rbo" else words.HEADS[m] for m in METRICS]
    drawn = _empty_table(heads, width)
    rows = words.placed(table)
    for index, (row, place) in enumerate(rows):
        last = index + 1 < len(rows) and place != APART and rows[index + 1].place == APART
        cells = [_cell(row.metrics.get(m), beside) for m in METRICS]
        style = "bold" if place == BEST else "dim" if place == APART else ""
        name = shorten(printable(row.name), _LONGEST)
        drawn.add_row(literal(MARKS[place]), literal(name), *cells, style=style, end_section=last)
    title = f"Agreement with the oracle under {table.weighting} ({table.unit})"
    lines = [LEGEND, *words.notes(report, table)] if rows else words.notes(report, table)
    return [*titled(title, drawn), *(literal(line, _tone(line)) for line in lines)]


def _empty_table(heads: Sequence[str], width: int) -> Table:
    from rich.text import Text

    drawn = ruled("", "method")
    drawn.padding = (0, 1 if width >= _AIRY else 0, 0, 0)
    for head in heads:
        drawn.add_column(Text(head), justify="right", no_wrap=True)
    return drawn


def _tone(line: str) -> str:
    return "yellow" if words.grave(line) else "dim"


def _cell(interval: Interval | None, beside: bool) -> Text:
    from rich.text import Text

    value, half = literal(value_text(interval)), literal(half_text(interval), "dim")
    return Text("" if beside or not half else "\n").join([value, half])


def _costs(table: AgreementTable, width: int, title: str) -> list[RenderableType]:
    rows = [row for row, _ in words.placed(table)]
    if not words.has_costs(rows):
        return []
    halves = [(what, unit) for what in ("prepare", "a query", "speed-up") for unit in ("forwards", "time")]
    drawn = _empty_table([f"{what}\n{unit}" for what, unit in halves], width)
    for row in rows:
        if not words.has_costs([row]):
            continue
        prepare, prepare_time, query, query_time, speedup, speedup_time = words.costs(row)
        cells = [work_text(prepare), time_text(prepare_time), work_text(query)]
        cells += [time_text(query_time), speedup_text(speedup), speedup_text(speedup_time)]
        drawn.add_row("", literal(shorten(printable(row.name), _LONGEST)), *map(literal, cells))
    note = f"{FORWARD_NOTE} Preparation is for all groups; speed-up is over LOGO's."
    return [*titled(title, drawn), literal(note, "dim")]


def _bands(bands: Sequence[BandPoint]) -> list[RenderableType]:
    if not bands:
        return []
    drawn = ruled("timesteps", right=("top-1", "NDCG@3", "Spearman", "reliability"))
    drawn.add_column("", no_wrap=True)
    for band in bands:
        top = known(band.metrics.get("top1"))
        cells = [f"{band.t_low}–{band.t_high}"]
        cells += [_pair(band.metrics.get(m)) for m in ("top1", "ndcg@3", "spearman")]
        cells.append(number(band.reliability, 2))
        drawn.add_row(*map(literal, cells), bar(top.value if top else None, 1.0, _BAR))
    return titled(f"{words.CEILING_TITLE}: the ceiling by band of timesteps (bars: top-1)", drawn)


def _steps(steps: Sequence[StepPoint]) -> list[RenderableType]:
    if not steps:
        return []
    drawn = ruled("weighting", "operator", right=("steps", "top-1", "NDCG@3", "Spearman"))
    drawn.add_column("", no_wrap=True)
    ordered = sorted(steps, key=lambda p: (p.weighting, p.operator, p.steps))
    for index, point in enumerate(ordered):
        new = _begins(ordered, index)
        top = known(point.metrics.get("top1"))
        cells = [point.weighting if new else "", point.operator if new else "", f"{point.steps:,}"]
        cells += [_pair(point.metrics.get(m)) for m in ("top1", "ndcg@3", "spearman")]
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
