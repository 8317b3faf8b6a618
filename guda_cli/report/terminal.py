"""The report for a terminal, as rich renderables; rich itself is imported when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guda_cli.report import words
from guda_cli.report.model import NO_GROUP, SIGN, Check, CostRow, GroupScore, QueryResult, ReportModel
from guda_cli.report.text import (
    change,
    count,
    duration,
    finite,
    printable,
    scale_for,
    shorten,
    significant,
    z_text,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_BLOCKS = " ▏▎▍▌▋▊▉█"
_WIDE = 100
_BAR = 8


def render(
    report: ReportModel, top: int, console_width: int, *, most_queries: int = 20
) -> list[RenderableType]:
    """The report's parts, each fit for ``console_width`` columns; empty parts are left out."""
    parts: list[RenderableType] = [_headline(report), _facts(report)]
    parts += [_text(f"warning: {warning}", "yellow") for warning in report.warnings]
    if report.queries:
        parts += _queries(report, top, console_width, most_queries)
    if len(report.queries) > 1:
        parts += _means(report, console_width)
        parts += _matrix(report, console_width)
    if report.checks:
        parts += _checks(report.checks, console_width)
    if report.costs:
        parts += _costs(report.costs)
    return parts


def query_table(query: QueryResult, top: int, unit: str) -> RenderableType:
    """One image: its answer, then its ``top`` groups with error, interval, z and a small bar."""
    from rich.console import Group

    entries = query.scores[:top]
    scale = scale_for([e.score for e in entries], [e.se for e in entries])
    reach = max((abs(e.score) for e in entries if finite(e.score) is not None), default=0.0)
    with_z = any(e.z is not None for e in entries)
    heads = (f"delta-ELBO {scale.label}".strip(), "± s.e.", "95 % interval", *(["z"] if with_z else []))
    table = _table("rank", "group", right=heads)
    table.add_column("", no_wrap=True, min_width=_BAR)
    for rank, e in enumerate(entries, 1):
        interval = f"{scale.show(e.low, sign=True)} … {scale.show(e.high, sign=True)}"
        cells = [f"{rank:>4}", e.group, scale.show(e.score, sign=True), scale.show(e.se), interval]
        cells += [z_text(e.z)] if with_z else []
        table.add_row(*map(_text, cells), bar(e.score, reach, _BAR), style="bold" if e.stands_out else "")
    head = _text(f"{query.name}: ").append(_text(words.query_answer(query), "bold"))
    more = len(query.scores) - len(entries)
    note = f"{unit}; {SIGN[0].lower()}{SIGN[1:]}" + (f" {more} more groups not shown." if more > 0 else "")
    return Group(head, table, _text(note, "dim"))


def bar(value: float, reach: float, width: int) -> Text:
    """A horizontal bar of block characters, blue and shaded below zero."""
    known = finite(value)
    if known is None or reach <= 0:
        return _text("")
    eighths = round(min(abs(known) / reach, 1.0) * width * 8)
    if known < 0:
        return _text("▒" * round(eighths / 8), "blue")
    full, part = divmod(eighths, 8)
    return _text("█" * full + (_BLOCKS[part] if part else ""), "red")


def _text(content: str, style: str = "") -> Text:
    """Literal text: neither markup nor control characters have an effect."""
    from rich.text import Text

    return Text(printable(content), style=style)


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    """A table whose ``right`` columns hold numbers and are never broken."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(_text(name), overflow="fold", min_width=min(len(name), 5))
    for name in right:
        table.add_column(_text(name), justify="right", no_wrap=True)
    return table


def _titled(title: str, table: Table) -> list[RenderableType]:
    return [_text(""), _text(title, "bold"), table]


def _headline(report: ReportModel) -> Text:
    from rich.text import Text

    lines = [_text(report.title, "bold"), _text(words.headline(report)), _text(SIGN, "dim")]
    return Text("\n").join(lines)


def _facts(report: ReportModel) -> Text:
    facts = [f"{name.lower()} {value}" for name, value in words.method_facts(report)]
    return _text(" · ".join(facts), "dim")


def _queries(report: ReportModel, top: int, width: int, most: int) -> list[RenderableType]:
    shown = [e for query in report.queries[:most] for e in query.scores[:top]]
    scale = scale_for([e.score for e in shown], [e.se for e in shown])
    heads = (f"delta-ELBO {scale.label}".strip(), "± s.e.", "z")
    table = _table("image", "group", right=heads)
    table.add_column("", no_wrap=True)
    room = max(12, width // 4 - 2)
    for query in report.queries[:most]:
        entries = query.scores[:top]
        for rank, e in enumerate(entries):
            first = rank == 0
            cells = [shorten(printable(query.name), room) if first else "", shorten(printable(e.group), room)]
            cells += [scale.show(e.score, sign=True), scale.show(e.se), z_text(e.z)]
            cells.append(_mark(query, e, first, width >= _WIDE))
            style = "bold" if e.stands_out else ""
            table.add_row(*map(_text, cells), style=style, end_section=rank == len(entries) - 1)
    parts = _titled(f"Images, highest groups first ({report.weighting_unit})", table)
    if len(report.queries) > most:
        parts.append(_text(f"{len(report.queries) - most:,} more images: --html, --csv or --json.", "dim"))
    if width < _WIDE and report.null is not None:
        parts.append(_text(f"◀ the group stands out; none: {NO_GROUP}.", "dim"))
    return [*parts, _text(words.null_line(report), "dim")]


def _mark(query: QueryResult, entry: GroupScore, first: bool, wide: bool) -> str:
    if entry.stands_out:
        return "◀ stands out" if wide else "◀"
    if first and query.answer == ():
        return NO_GROUP if wide else "none"
    return ""


def _means(report: ReportModel, width: int) -> list[RenderableType]:
    known = sorted((m for m in report.mean_scores if finite(m.mean) is not None), key=lambda m: -m.mean)
    if not known:
        return []
    scale = scale_for([m.mean for m in known], [m.se for m in known])
    reach = max(abs(m.mean) for m in known)
    table = _table("group", right=(f"mean {scale.label}".strip(), "± s.e."))
    table.add_column("", no_wrap=True)
    for m in known:
        name = shorten(printable(m.group), width // 3)
        cells = [name, scale.show(m.mean, sign=True), scale.show(m.se)]
        table.add_row(*map(_text, cells), bar(m.mean, reach, 20))
    return _titled(f"Mean over {len(report.queries):,} images (± its standard error over the images)", table)


def _matrix(report: ReportModel, width: int) -> list[RenderableType]:
    """The matrix if it fits the width, else a line that says where it is."""
    values = [v for row in report.matrix.values() for v in map(finite, row.values()) if v is not None]
    if not values:
        return []
    scale = scale_for([float(np.quantile(np.abs(values), 0.98))], values)
    cell = max(len(scale.show(v)) for v in values)
    heads = [shorten(printable(g), max(cell, 5)) for g in report.groups]
    labels = [f"{shorten(printable(row), 10)} ({report.matrix_counts.get(row, 0)})" for row in report.matrix]
    first = max(len("looks like"), *map(len, labels))
    if first + 1 + sum(max(cell, len(head)) + 2 for head in heads) > width:
        text = f"The matrix of {len(heads)} groups is too wide for {width} columns: see --html."
        return [_text(text, "dim")]
    table = _table("looks like", right=heads)
    table.padding = (0, 1)
    for label, (row, cells) in zip(labels, report.matrix.items(), strict=True):
        shown = [_text(scale.show(cells.get(g)), "bold" if g == row else "") for g in report.groups]
        table.add_row(_text(label), *shown)
    title = f"Mean score {scale.label}".rstrip()
    return _titled(f"{title}: rows by what the image looks like, columns by the group removed", table)


def _checks(checks: Sequence[Check], width: int) -> list[RenderableType]:
    table = _table("group", "result", right=("group's loss", "rest's loss"))
    table.add_column("why", overflow="fold")
    for check in sorted(checks, key=lambda c: c.passed):
        table.add_row(
            _text(shorten(printable(check.group), max(8, width // 5))),
            _text("passed", "green") if check.passed else _text("FAILED", "bold red"),
            _text(_loss(check.group_before, check.group_after)),
            _text(_loss(check.rest_before, check.rest_after)),
            _text(check.why),
        )
    return _titled("Checks of the models without a group (loss per pixel, change)", table)


def _loss(before: float, after: float) -> str:
    return f"{significant(after)} ({change(before, after)})"


def _costs(costs: Sequence[CostRow]) -> list[RenderableType]:
    table = _table("step", right=("run", "cached", "time", "forward-equivalents"))
    totals = words.cost_totals(costs)
    for index, (name, run, cached, seconds, forwards) in enumerate(totals):
        cells = [name, f"{run:,}", f"{cached:,}", duration(seconds), count(forwards)]
        table.add_row(*map(_text, cells), end_section=index == len(totals) - 4)
    return [*_titled("Cost", table), _text(words.FORWARD_NOTE, "dim")]
