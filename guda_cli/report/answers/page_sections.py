"""The page's scores: a card an image, the mean per group, the matrix of groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guda_cli.intervals import student95
from guda_cli.report.answers import columns, words
from guda_cli.report.answers.columns import Kind, Line, ScoreColumn, View
from guda_cli.report.answers.content import GroupMean, GroupScore, InstanceScore, QueryResult, ReportModel
from guda_cli.report.pieces.css import heat_class
from guda_cli.report.pieces.markup import Column, bar, esc, scrolling, span, table, thumbnail
from guda_cli.report.pieces.text import UNKNOWN, Scale, finite, scale_for, shorten

_MOST = 12
_THUMB = 152
_TINY = 24
_INSTANCE = 48


def queries_section(report: ReportModel, top: int, expanded: int) -> str:
    """Every query: the first as cards, the rest as rows of one table."""
    if not report.queries:
        return ""
    most = min(top, len(report.groups))
    intro = f"The {most} highest groups of each image. "
    if columns.have_errors(entry for query in report.queries for entry in query.scores):
        intro += "The lines show the 95 % Monte-Carlo interval, ± the standard error. "
    intro += "Bars of one card share a scale; bars of two cards do not. "
    if report.null is not None:
        intro += "Pale bars do not stand out. "
    intro += words.null_line(report)
    intro += f" {words.retraining_line(report)}".rstrip()
    cards = "".join(query_card(query, top, report.counterfactual) for query in report.queries[:expanded])
    rest = report.queries[expanded:]
    more = _compact(rest, words.score_name(report.counterfactual)) if rest else ""
    return f'<p>{esc(intro)}</p><div class="cards">{cards}</div>{more}'


def query_card(query: QueryResult, top: int, counterfactual: bool) -> str:
    """One query: its picture, what is known of it, its highest groups."""
    looks = f" · looks like {esc(query.looks_like)}" if query.looks_like else ""
    elbo, foretold = words.elbo_line(query), words.foretold_line(query)
    return (
        f'<article class="card"><header>{thumbnail(query.pixels, query.name, most=_THUMB, css="thumb")}'
        f"<div><h3>{esc(words.caption(query))}</h3>"
        f'<p class="muted small"><code title="{esc(query.digest)}">{esc(query.digest[:12])}</code>{looks}</p>'
        f'<p class="answer">{esc(words.query_answer(query))}</p>'
        + (f'<p class="muted small">{esc(elbo)}</p>' if elbo else "")
        + f"</div></header>{_bars(query, top, counterfactual)}"
        + (f'<p class="muted small">{esc(foretold)}</p>' if foretold else "")
        + f"{_instances(query.instances)}</article>"
    )


def _instances(instances: Sequence[InstanceScore]) -> str:
    """The training images of the highest score, as thumbnails with name, groups and score."""
    if not instances:
        return ""
    scale = scale_for([one.score for one in instances])
    items = "".join(
        f"<li>{thumbnail(one.pixels, one.name, most=_INSTANCE, css='instance', colours=64, what='training')}"
        f'<span class="instance-name" title="{esc(one.name)}">{esc(shorten(one.name, 24))}</span>'
        f'<span class="muted">{esc(shorten(", ".join(one.groups) or UNKNOWN, 24))}</span>'
        f"<span>{scale.show(one.score, sign=True)}</span></li>"
        for one in instances
    )
    head = f"Training images, highest score first {scale.label}".rstrip()
    return f'<p class="muted small">{esc(head)}</p><ol class="instances">{items}</ol>'


def chosen(query: QueryResult, top: int) -> list[Line]:
    """The first ``top`` groups, and more of those that stand out, up to twelve."""
    return columns.ranked(query, max(top, min(sum(bool(e.stands_out) for e in query.scores), _MOST)))


def _bars(query: QueryResult, top: int, counterfactual: bool) -> str:
    """An image's groups; the bar stands beside the first column, the group's name."""
    lines = chosen(query, top)
    entries = [line.entry for line in lines]
    shared, scale = span(entries), columns.scale_of(entries)
    shown = columns.pick(View.CARD, entries)
    heads = [Column(c.heading(scale, counterfactual), c.kind is Kind.NUMBER, c.css) for c in shown]
    heads = [heads[0]._replace(head=heads[0].head.capitalize()), Column(""), *heads[1:]]
    rows = []
    for line in lines:
        name, *cells = [_cell(column, View.CARD, line, scale) for column in shown]
        name = f"<strong>{name}</strong>" if line.entry.stands_out else name
        rows.append([name, bar(line.entry, shared), *cells])
    return table(f"Groups of {query.name}, highest first", heads, rows, css="bars", quiet=True)


def _cell(column: ScoreColumn, view: View, line: Line, scale: Scale) -> str:
    """One cell as HTML; a number has nothing to escape."""
    text = column.text(view, line, scale)
    return text if column.kind is Kind.NUMBER else _cut(text)


def _cut(text: str) -> str:
    return f'<span title="{esc(text)}">{esc(shorten(text, 44))}</span>'


def _brief(query: QueryResult) -> str:
    lines = columns.ranked(query, 3)
    entries = [line.entry for line in lines]
    scale, shown = columns.scale_of(entries), columns.pick(View.BRIEF, entries)
    cells = [[_cell(column, View.BRIEF, line, scale) for column in shown] for line in lines]
    return "; ".join(f'<span class="keep">{" ".join([*one, scale.label]).rstrip()}</span>' for one in cells)


def _compact(queries: Sequence[QueryResult], score_name: str) -> str:
    heads = [Column("Image"), Column(""), Column("Digest"), Column("Looks like"), Column("Answer")]
    heads.append(Column(f"Highest three: {score_name}"))
    rows = [
        [
            esc(words.caption(q)),
            thumbnail(q.pixels, q.name, most=_TINY, css="tiny", colours=32),
            f"<code>{esc(q.digest[:12])}</code>",
            esc(q.looks_like or UNKNOWN),
            esc(words.query_answer(q)),
            _brief(q),
        ]
        for q in queries
    ]
    caption = f"The other {len(queries):,} images"
    return scrolling(table(caption, heads, rows, css="compact"), caption)


def means_section(report: ReportModel) -> str:
    """Mean score of every group over the queries, as bars."""
    known = [m for m in report.mean_scores if finite(m.mean) is not None]
    if not known or len(report.queries) < 2:
        return ""
    entries = [_as_score(m, len(report.queries)) for m in sorted(known, key=lambda m: -m.mean)]
    shared, scale = span(entries), columns.scale_of(entries)
    heads = [
        Column("Group", css="c-group"),
        Column(""),
        Column(f"mean {words.score_name(report.counterfactual)} {scale.label}", True, "c-value"),
    ]
    rows = [[_cut(e.group), bar(e, shared), scale.pair(e.score, e.se)] for e in entries]
    caption = (
        f"Mean over {len(report.queries):,} images, in {report.weighting_unit}; ± its standard error over "
        "the images, the lines 95 % intervals of the mean"
    )
    return f'<div class="card">{table(caption, heads, rows, css="bars wide")}</div>'


def _as_score(found: GroupMean, images: int) -> GroupScore:
    if found.se is None:
        return GroupScore(found.group, found.mean)
    reach = student95(images - 1) * found.se
    return GroupScore(found.group, found.mean, found.se, found.mean - reach, found.mean + reach)


def matrix_section(report: ReportModel) -> str:
    """Mean scores of the images that look like each group, as a heat table."""
    values = [v for row in report.matrix.values() for v in map(finite, row.values()) if v is not None]
    if not values or len(report.queries) < 2:
        return ""
    limit = float(np.quantile(np.abs(values), 0.98)) or max(map(abs, values))
    scale = scale_for([limit], values)
    turned = len(report.groups) > _MOST or sum(map(len, report.groups)) > 90
    css = "heat" + (" turned" if turned else "") + (" dense" if len(report.groups) > 24 else "")
    heads = "".join(
        f'<th scope="col" title="{esc(g)}"><span>{esc(shorten(g, 22))}</span></th>' for g in report.groups
    )
    body = "".join(_matrix_row(report, row, limit, scale) for row in report.matrix)
    unit = f"{scale.label} {report.weighting_unit}".strip()
    intro = (
        "Rows: images by the group they look most like (with how many there are). Columns: the group "
        f"{'that was removed' if report.counterfactual else 'scored'}. A high diagonal (outlined) says that "
        "images owe most to the group they look like. "
        f"Numbers in {unit}; colours saturate at ±{scale.show(limit)}."
    )
    content = (
        f'<table class="{css}"><caption class="sr">Mean score by look and group</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )
    return f"<p>{esc(intro)}</p>{scrolling(content, 'Groups against groups')}"


def _matrix_row(report: ReportModel, row: str, limit: float, scale: Scale) -> str:
    cells = []
    for group in report.groups:
        value = finite(report.matrix[row].get(group))
        own = " own" if group == row else ""
        colour = "h0" if value is None else heat_class(value, limit)
        cells.append(f'<td class="{colour}{own}">{scale.show(value)}</td>')
    count = report.matrix_counts.get(row)
    suffix = f' <span class="muted">({count:,})</span>' if count is not None else ""
    return f'<tr><th scope="row" title="{esc(row)}">{esc(shorten(row, 26))}{suffix}</th>{"".join(cells)}</tr>'
