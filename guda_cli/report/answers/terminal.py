"""The report for a terminal, as rich renderables; rich itself is imported when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guda_cli.report.answers import columns, words
from guda_cli.report.answers.columns import Kind, ScoreColumn, View
from guda_cli.report.answers.content import (
    NO_GROUP,
    Check,
    CostRow,
    QueryResult,
    Regeneration,
    ReportModel,
)
from guda_cli.report.pieces.rich_pieces import bar, literal, number_column, ruled, text_column, titled
from guda_cli.report.pieces.text import (
    Scale,
    change,
    count,
    duration,
    finite,
    printable,
    scale_for,
    shorten,
    significant,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDE = 100
_BAR = 8


def render(
    report: ReportModel, top: int, console_width: int, *, most_queries: int = 20
) -> list[RenderableType]:
    """The report's parts, each fit for ``console_width`` columns; empty parts are left out."""
    parts: list[RenderableType] = [_headline(report), _facts(report)]
    parts += [literal(f"warning: {warning}", "yellow") for warning in report.warnings]
    if report.queries:
        parts += _queries(report, top, console_width, most_queries)
    if len(report.queries) > 1:
        parts += _means(report, console_width)
        parts += _matrix(report, console_width)
    if report.regeneration:
        parts += _regeneration(report.regeneration)
    if report.checks:
        parts += _checks(report.checks, console_width)
    if report.costs:
        parts += _costs(report.costs)
    return parts


def query_table(query: QueryResult, top: int, unit: str, *, counterfactual: bool = True) -> RenderableType:
    """One image: its answer, then its ``top`` groups with error, interval, z and a small bar.

    ``counterfactual`` as in `ReportModel`. Training images follow where the method scores them.
    """
    from rich.console import Group

    lines = columns.ranked(query, top)
    entries = [line.entry for line in lines]
    scale, shown = columns.scale_of(entries), columns.pick(View.TABLE, entries)
    reach = max((abs(e.score) for e in entries if finite(e.score) is not None), default=0.0)
    table = _headed(shown, scale, counterfactual)
    table.add_column("", no_wrap=True, min_width=_BAR)
    for line in lines:
        cells = [literal(column.text(View.TABLE, line, scale)) for column in shown]
        style = "bold" if line.entry.stands_out else ""
        table.add_row(*cells, bar(line.entry.score, reach, _BAR), style=style)
    head = literal(f"{words.caption(query)}: ").append(literal(words.query_answer(query), "bold"))
    more = len(query.scores) - len(entries)
    sign = words.sign(counterfactual)
    note = f"{unit}; {sign[0].lower()}{sign[1:]}" + (f" {more} more groups not shown." if more > 0 else "")
    return Group(head, table, literal(note, "dim"), *_instances(query))


def _headed(shown: Sequence[ScoreColumn], scale: Scale, counterfactual: bool) -> Table:
    """A table with the heads of these columns and no rows yet."""
    table = ruled()
    for column in shown:
        head = column.heading(scale, counterfactual).strip()
        if column.kind is Kind.TEXT:
            text_column(table, head)
        elif column.kind is Kind.NUMBER:
            number_column(table, head)
        else:
            table.add_column(literal(head), no_wrap=True)
    return table


def _instances(query: QueryResult) -> list[RenderableType]:
    if not query.instances:
        return []
    scale = scale_for([one.score for one in query.instances])
    table = ruled("rank", "training image", "groups", right=(f"score {scale.label}".strip(),))
    for rank, one in enumerate(query.instances, 1):
        cells = [f"{rank:>4}", one.name, ", ".join(one.groups), scale.show(one.score, sign=True)]
        table.add_row(*map(literal, cells))
    return [table]


def _headline(report: ReportModel) -> Text:
    from rich.text import Text

    lines = [
        literal(report.title, "bold"),
        literal(words.headline(report)),
        literal(words.sign(report.counterfactual), "dim"),
    ]
    return Text("\n").join(lines)


def _facts(report: ReportModel) -> Text:
    facts = [f"{name.lower()} {value}" for name, value in words.method_facts(report)]
    return literal(" · ".join(facts), "dim")


def _queries(report: ReportModel, top: int, width: int, most: int) -> list[RenderableType]:
    rankings = [columns.ranked(query, top) for query in report.queries[:most]]
    entries = [line.entry for lines in rankings for line in lines]
    view = View.LIST if width >= _WIDE else View.NARROW
    scale, shown = columns.scale_of(entries), columns.pick(view, entries)
    table = _headed(shown, scale, report.counterfactual)
    room = max(12, width // 4 - 2)
    for lines in rankings:
        for line in lines:
            texts = [(column, column.text(view, line, scale)) for column in shown]
            cells = [shorten(printable(t), room) if c.kind is Kind.TEXT else t for c, t in texts]
            style = "bold" if line.entry.stands_out else ""
            table.add_row(*map(literal, cells), style=style, end_section=line.rank == len(lines))
    parts = titled(f"Images, highest groups first ({report.weighting_unit})", table)
    if len(report.queries) > most:
        parts.append(literal(f"{len(report.queries) - most:,} more images: --html, --csv or --json.", "dim"))
    if width < _WIDE and report.null is not None:
        parts.append(literal(f"◀ the group stands out; none: {NO_GROUP}.", "dim"))
    parts.append(literal(words.null_line(report), "dim"))
    foretold = words.retraining_line(report)
    return [*parts, literal(foretold, "dim")] if foretold else parts


def _means(report: ReportModel, width: int) -> list[RenderableType]:
    known = sorted((m for m in report.mean_scores if finite(m.mean) is not None), key=lambda m: -m.mean)
    if not known:
        return []
    scale = scale_for([m.mean for m in known], [m.se for m in known])
    reach = max(abs(m.mean) for m in known)
    table = ruled("group", right=(f"mean {scale.label}".strip(), "± s.e."))
    table.add_column("", no_wrap=True)
    for m in known:
        name = shorten(printable(m.group), width // 3)
        cells = [name, scale.show(m.mean, sign=True), scale.show(m.se)]
        table.add_row(*map(literal, cells), bar(m.mean, reach, 20))
    return titled(f"Mean over {len(report.queries):,} images (± its standard error over the images)", table)


def _matrix(report: ReportModel, width: int) -> list[RenderableType]:
    """The matrix if it fits the width, else a line that says where it is."""
    values = [v for row in report.matrix.values() for v in map(finite, row.values()) if v is not None]
    if not values:
        unsaid = words.looks_line(report)
        return [literal(unsaid, "dim")] if unsaid and len(report.queries) > 1 else []
    scale = scale_for([float(np.quantile(np.abs(values), 0.98))], values)
    cell = max(len(scale.show(v)) for v in values)
    heads = [shorten(printable(g), max(cell, 5)) for g in report.groups]
    labels = [f"{shorten(printable(row), 10)} ({report.matrix_counts.get(row, 0)})" for row in report.matrix]
    first = max(len("looks like"), *map(len, labels))
    if first + 1 + sum(max(cell, len(head)) + 2 for head in heads) > width:
        text = f"The matrix of {len(heads)} groups is too wide for {width} columns: see --html."
        return [literal(text, "dim")]
    table = ruled("looks like", right=heads)
    table.padding = (0, 1)
    for label, (row, cells) in zip(labels, report.matrix.items(), strict=True):
        shown = [literal(scale.show(cells.get(g)), "bold" if g == row else "") for g in report.groups]
        table.add_row(literal(label), *shown)
    title = f"Mean score {scale.label}".rstrip()
    across = "the group removed" if report.counterfactual else "group"
    parts = titled(f"{title}: rows by what the image looks like, columns by {across}", table)
    return [*parts, literal(words.looks_line(report), "dim")] if report.looks else parts


def _regeneration(found: Regeneration) -> list[RenderableType]:
    table = ruled("change", right=words.REGENERATION_HEADS)
    for one in found.changes:
        table.add_row(*map(literal, words.regeneration_cells(one)))
    parts = titled("Drawn without the groups", table) if found.changes else [literal("")]
    return [*parts, literal(words.regeneration_line(found), "dim")]


def _checks(checks: Sequence[Check], width: int) -> list[RenderableType]:
    table = ruled("group", "result", right=("group's loss", "rest's loss"))
    table.add_column("why", overflow="fold")
    for check in sorted(checks, key=lambda c: words.VERDICTS.index(c.verdict)):
        table.add_row(
            literal(shorten(printable(check.group), max(8, width // 5))),
            literal(*_RESULTS[check.verdict]),
            literal(_loss(check.group_before, check.group_after)),
            literal(_loss(check.rest_before, check.rest_after)),
            literal(check.why),
        )
    parts = titled("Checks of the models without a group (loss per pixel, change)", table)
    return parts + _held_out(checks, width)


_RESULTS = {
    "passed": ("passed", "green"),
    "doubtful": ("doubtful", "yellow"),
    "failed": ("FAILED", "bold red"),
}


def _held_out(checks: Sequence[Check], width: int) -> list[RenderableType]:
    table = ruled("group", right=("group's loss", "rest's loss", "told apart"))
    for check in checks:
        found = check.held_out
        if found is not None:
            name = shorten(printable(check.group), max(8, width // 5))
            losses = [_loss(found[f"{side}_before"], found[f"{side}_after"]) for side in ("group", "rest")]
            table.add_row(*map(literal, (name, *losses, words.told_apart(check))))
    if not table.rows:
        return []
    title = "The same on images held out of training"
    return [*titled(title, table), literal(words.MEMBERSHIP_NOTE, "dim")]


def _loss(before: float, after: float) -> str:
    return f"{significant(after)} ({change(before, after)})"


def _costs(costs: Sequence[CostRow]) -> list[RenderableType]:
    table = ruled("step", right=("run", "cached", "time", "forward-equivalents"))
    totals = words.cost_totals(costs)
    for index, (name, run, cached, seconds, forwards) in enumerate(totals):
        cells = [name, f"{run:,}", f"{cached:,}", duration(seconds), count(forwards)]
        table.add_row(*map(literal, cells), end_section=index == len(totals) - 4)
    return [*titled("Cost", table), literal(words.FORWARD_NOTE, "dim")]


def query_line(query: QueryResult, top: int) -> str:
    """`name: groups that stand out, starred, and the first `top` groups with score and error`."""
    lines = columns.ranked(query, top)
    scale, shown = columns.scale_of(line.entry for line in lines), columns.pick(View.LINE)
    parts = ["".join(column.text(View.LINE, line, scale) for column in shown) for line in lines]
    answer = f"{NO_GROUP}; " if query.answer is not None and not query.answer else ""
    if query.unlike:
        answer = f"{words.UNLIKE}; "
    return f"{printable(words.caption(query))}: {answer}{'; '.join(parts)}"
