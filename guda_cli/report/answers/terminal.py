"""The report for a terminal, as rich renderables; rich itself is imported when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guda_cli.phrases import plural
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
from guda_cli.report.pieces.rich_pieces import bar, literal, titled
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
from guda_cli.tables import Column, Row, fitted, fold

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WIDE = 100
_BARS = (8, 20)  # columns of a bar, where there is little room and where there is enough
_IMAGES = 20  # images in a report's table, unless all rows are wanted
# What goes first where there is little room, by the names of columns; 0: what stays.
_DROP = {"interval": 4, "rank": 3, "se": 1, "z": 2}


def render(
    report: ReportModel, top: int, console_width: int, *, all_rows: bool = False
) -> list[RenderableType]:
    """The report's parts, each fit for ``console_width`` columns; empty parts are left out.

    Long tables are folded unless ``all_rows`` are wanted.
    """
    parts: list[RenderableType] = [_headline(report), _facts(report)]
    parts += [literal(f"warning: {warning}", "yellow") for warning in report.warnings]
    if report.queries:
        parts += _queries(report, top, console_width, len(report.queries) if all_rows else _IMAGES)
    if len(report.queries) > 1:
        parts += _means(report, console_width, all_rows)
        parts += _matrix(report, console_width)
    if report.regeneration:
        parts += _regeneration(report.regeneration, console_width)
    if report.checks:
        parts += _checks(report.checks, console_width, all_rows)
    if report.costs:
        parts += _costs(report.costs, console_width)
    return parts


def query_table(
    query: QueryResult, top: int, unit: str, width: int = 80, *, counterfactual: bool = True
) -> RenderableType:
    """One image: its answer, then its ``top`` groups with error, interval, z and a small bar.

    ``counterfactual`` as in `ReportModel`. Training images follow where the method scores them.
    """
    from rich.console import Group

    lines = columns.ranked(query, top)
    entries = [line.entry for line in lines]
    scale, shown = columns.scale_of(entries), columns.pick(View.TABLE, entries)
    reach = max((abs(e.score) for e in entries if finite(e.score) is not None), default=0.0)
    rows = [
        Row(
            [
                *(literal(column.text(View.TABLE, line, scale)) for column in shown),
                bar(line.entry.score, reach, _BARS[0]),
            ],
            "bold" if line.entry.stands_out else "",
        )
        for line in lines
    ]
    heads = [*(_column(column, scale, counterfactual) for column in shown), _bar_column(_BARS[0])]
    head = literal(f"{query.name}: ").append(literal(words.query_answer(query), "bold"))
    told = words.told(query)
    parts: list[RenderableType] = [
        head,
        *([literal(f"with {told}", "dim")] if told else []),
        fitted(heads, rows, width),
    ]
    more = len(query.scores) - len(entries)
    left = f"; {plural(more, 'more group', 'more groups')} not shown (--top)" if more > 0 else ""
    return Group(*parts, literal(f"{unit}{left}", "dim"), *_instances(query, width))


def _column(column: ScoreColumn, scale: Scale, counterfactual: bool) -> Column:
    head = column.heading(scale, counterfactual).strip()
    name = column.name in ("query", "group")
    return Column(head, column.kind is Kind.NUMBER, cut=name, drop=_DROP.get(column.name, 0))


def _bar_column(width: int) -> Column:
    return Column(" " * width, drop=2)


def _instances(query: QueryResult, width: int) -> list[RenderableType]:
    if not query.instances:
        return []
    scale = scale_for([one.score for one in query.instances])
    heads = [Column("rank", drop=1), Column("training image", cut=True), Column("groups", cut=True)]
    heads.append(Column(f"score {scale.label}".strip(), right=True))
    rows = [
        Row([f"{rank:>4}", one.name, ", ".join(one.groups), scale.show(one.score, sign=True)])
        for rank, one in enumerate(query.instances, 1)
    ]
    return [fitted(heads, rows, width)]


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
    room = max(12, width // 2)
    rows = []
    for lines in rankings:
        for line in lines:
            texts = [(column, column.text(view, line, scale)) for column in shown]
            cells = [shorten(printable(t), room) if c.kind is Kind.TEXT else t for c, t in texts]
            rows.append(Row(cells, "bold" if line.entry.stands_out else "", line.rank == len(lines)))
    drawn = fitted([_column(column, scale, report.counterfactual) for column in shown], rows, width)
    parts = titled(f"Images, highest groups first ({report.weighting_unit})", drawn)
    if len(report.queries) > most:
        more = plural(len(report.queries) - most, "more image", "more images")
        parts.append(literal(f"{more}: --all-rows shows them; --html, --csv and --json have all.", "dim"))
    if width < _WIDE and report.null is not None:
        parts.append(literal(f"◀ the group stands out; none: {NO_GROUP}.", "dim"))
    parts.append(literal(words.null_line(report), "dim"))
    foretold = words.retraining_line(report)
    return [*parts, literal(foretold, "dim")] if foretold else parts


def _means(report: ReportModel, width: int, all_rows: bool) -> list[RenderableType]:
    known = sorted((m for m in report.mean_scores if finite(m.mean) is not None), key=lambda m: -m.mean)
    if not known:
        return []
    scale = scale_for([m.mean for m in known], [m.se for m in known])
    reach, size = max(abs(m.mean) for m in known), _BARS[width >= _WIDE]
    shown, more = fold(known, whole=all_rows, what="groups")
    rows = [
        Row([m.group, scale.show(m.mean, sign=True), scale.show(m.se), bar(m.mean, reach, size)])
        for m in shown
    ]
    heads = [Column("group", cut=True), Column(f"mean {scale.label}".strip(), right=True)]
    heads += [Column("± s.e.", right=True, drop=1), _bar_column(size)]
    title = f"Mean over {len(report.queries):,} images (± its standard error over the images)"
    return [*titled(title, fitted(heads, rows, width)), *_remark(more)]


def _matrix(report: ReportModel, width: int) -> list[RenderableType]:
    """The matrix if it fits the width, with names as whole as can be; else a line that says where it is."""
    values = [v for row in report.matrix.values() for v in map(finite, row.values()) if v is not None]
    if not values:
        unsaid = words.looks_line(report)
        return [literal(unsaid, "dim")] if unsaid and len(report.queries) > 1 else []
    scale = scale_for([float(np.quantile(np.abs(values), 0.98))], values)
    cell = max(len(scale.show(v)) for v in values)
    names = [printable(g) for g in report.groups]
    labels = [f"{printable(row)} ({report.matrix_counts.get(row, 0)})" for row in report.matrix]
    room = _room(names, labels, cell, width)
    if room is None:
        text = f"The matrix of {len(names)} groups is too wide for {width} columns: see --html."
        return [literal(text, "dim")]
    heads = [Column("looks like", cut=True)]
    heads += [Column(shorten(name, room), right=True) for name in names]
    rows = []
    for label, (row, cells) in zip(labels, report.matrix.items(), strict=True):
        shown = [literal(scale.show(cells.get(g)), "bold" if g == row else "") for g in report.groups]
        rows.append(Row([label, *shown]))
    title = f"Mean score {scale.label}".rstrip()
    across = "the group removed" if report.counterfactual else "group"
    title = f"{title}: rows by what the image looks like, columns by {across}"
    parts = titled(title, fitted(heads, rows, width))
    return [*parts, literal(words.looks_line(report), "dim")] if report.looks else parts


def _room(names: Sequence[str], labels: Sequence[str], cell: int, width: int) -> int | None:
    """How many letters of a group's name its column can have: all, where they fit; None where too few do."""
    first = max(len("looks like"), min(max(map(len, labels)), width // 3))
    for room in range(max(map(len, names)), 5, -1):
        wide = sum(max(cell, min(len(name), room)) for name in names)
        if 2 + first + 2 * len(names) + wide <= width:
            cut = {shorten(name, room) for name in names}
            return room if len(cut) == len(set(names)) else None
    return None


def _remark(text: str) -> list[RenderableType]:
    return [literal(text, "dim")] if text else []


def _regeneration(found: Regeneration, width: int) -> list[RenderableType]:
    heads = [Column("change", wrap=True)]
    heads += [
        Column(head, right=True, drop=drop)
        for head, drop in zip(words.REGENERATION_HEADS, (3, 3, 0, 2), strict=True)
    ]
    rows = [Row(list(words.regeneration_cells(one))) for one in found.changes]
    parts = titled("Drawn without the groups", fitted(heads, rows, width)) if rows else [literal("")]
    return [*parts, literal(words.regeneration_line(found), "dim")]


def _checks(checks: Sequence[Check], width: int, all_rows: bool) -> list[RenderableType]:
    ordered = sorted(checks, key=lambda c: words.VERDICTS.index(c.verdict))
    # The failures come first here, so that the first rows are those to be looked at.
    shown, more = fold(ordered, whole=all_rows, bad=lambda c: c.verdict != "passed", what="checks")
    heads = [Column("group", cut=True), Column("result")]
    heads += [Column("group's loss", right=True, drop=2), Column("rest's loss", right=True, drop=3)]
    heads.append(Column("why", wrap=True, drop=1))
    rows = [
        Row(
            [
                check.group,
                literal(*_RESULTS[check.verdict]),
                _loss(check.group_before, check.group_after),
                _loss(check.rest_before, check.rest_after),
                "" if check.verdict == "passed" else check.why,
            ]
        )
        for check in shown
    ]
    parts = titled(
        "Checks of the models without a group (loss per pixel, change)", fitted(heads, rows, width)
    )
    return [*parts, *_remark(more), *_held_out(shown, width)]


_RESULTS = {
    "passed": ("passed", "green"),
    "doubtful": ("doubtful", "yellow"),
    "failed": ("FAILED", "bold red"),
}


def _held_out(checks: Sequence[Check], width: int) -> list[RenderableType]:
    rows = []
    for check in checks:
        found = check.held_out
        if found is not None:
            losses = [_loss(found[f"{side}_before"], found[f"{side}_after"]) for side in ("group", "rest")]
            rows.append(Row([check.group, *losses, words.told_apart(check)]))
    if not rows:
        return []
    heads = [Column("group", cut=True), Column("group's loss", right=True)]
    heads += [Column("rest's loss", right=True, drop=2), Column("told apart", right=True, drop=1)]
    title = "The same on images held out of training"
    return [*titled(title, fitted(heads, rows, width)), literal(words.MEMBERSHIP_NOTE, "dim")]


def _loss(before: float, after: float) -> str:
    return f"{significant(after)} ({change(before, after)})"


def _costs(costs: Sequence[CostRow], width: int) -> list[RenderableType]:
    heads = [Column("step"), Column("run", right=True, drop=1), Column("cached", right=True, drop=1)]
    heads += [Column("time", right=True)]
    heads += [Column("forward-equivalents", right=True, drop=2, narrow="forward-\nequivalents")]
    totals = words.cost_totals(costs)
    rows = [
        Row(
            [name, f"{run:,}", f"{cached:,}", duration(seconds), count(forwards)],
            end=index == len(totals) - 4,
        )
        for index, (name, run, cached, seconds, forwards) in enumerate(totals)
    ]
    return [*titled("Cost", fitted(heads, rows, width)), literal(words.FORWARD_NOTE, "dim")]
