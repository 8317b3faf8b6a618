"""The page's summaries: the mean score of every group, and the matrix of groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from guda_cli.intervals import student95
from guda_cli.report.answers import columns, words
from guda_cli.report.answers.content import GroupMean, GroupScore, ReportModel
from guda_cli.report.pieces.css import heat_class
from guda_cli.report.pieces.markup import Column, bar, clipped, esc, scrolling, span
from guda_cli.report.pieces.skeleton import ROWS, details, folded_table
from guda_cli.report.pieces.text import Scale, finite, scale_for, shorten

_TURNED = 12
"""Groups from which the matrix has its heads turned."""
_DENSE = 24
_WIDEST = 40
"""Groups beyond which the matrix of all stands in a fold."""


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
    rows = [[clipped(e.group, 44), bar(e, shared), scale.pair(e.score, e.se)] for e in entries]
    caption = (
        f"Mean over {len(report.queries):,} images, in {report.weighting_unit}; ± its standard error over "
        "the images, the lines 95 % intervals of the mean"
    )
    return f'<div class="card">{folded_table(caption, heads, rows, css="bars wide")}</div>'


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
    unit = f"{scale.label} {report.weighting_unit}".strip()
    intro = (
        "Rows: images by the group they look most like (with how many there are). Columns: the group "
        f"{'that was removed' if report.counterfactual else 'scored'}. A high diagonal (outlined) says that "
        "images owe most to the group they look like. "
        f"Numbers in {unit}; colours saturate at ±{scale.show(limit)}."
    )
    whole = _matrix(report, list(report.matrix), report.groups, limit, scale)
    if len(report.groups) <= _WIDEST:
        return f"<p>{esc(intro)}</p>{whole}"
    most = _commonest(report)
    intro += f" Shown are the {len(most)} groups that the most images look like."
    part = _matrix(report, most, [group for group in report.groups if group in most], limit, scale)
    return f"<p>{esc(intro)}</p>{part}{details(f'All {len(report.groups):,} groups', whole)}"


def _commonest(report: ReportModel) -> list[str]:
    """The rows with the most images, in the matrix' order."""
    counts = report.matrix_counts
    most = sorted(report.matrix, key=lambda row: -counts.get(row, 0))[:ROWS]
    return [row for row in report.matrix if row in set(most)]


def _matrix(
    report: ReportModel, rows: Collection[str], groups: Sequence[str], limit: float, scale: Scale
) -> str:
    turned = len(groups) > _TURNED or sum(map(len, groups)) > 90
    css = "heat" + (" turned" if turned else "") + (" dense" if len(groups) > _DENSE else "")
    css += " even" if len(groups) > _WIDEST else ""  # of 90,000 cells, no browser measures each in no time
    heads = "".join(
        f'<th scope="col" class="num" title="{esc(g)}"><span>{esc(shorten(g, 22))}</span></th>'
        for g in groups
    )
    made = [_matrix_row(report, row, groups, limit, scale) for row in rows]
    first, rest = (
        f'<table class="{css}" data-sort><caption class="sr">Mean score by look and group</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(part)}</tbody></table>"
        for part in (made[:ROWS], made[ROWS:])
    )
    if len(made) > ROWS:
        first = f'<div class="fold">{first}{details(f"The other {len(made) - ROWS:,}", rest)}</div>'
    return scrolling(first, "Groups against groups")


def _matrix_row(report: ReportModel, row: str, groups: Sequence[str], limit: float, scale: Scale) -> str:
    cells = []
    for group in groups:
        value = finite(report.matrix[row].get(group))
        own = " own" if group == row else ""
        colour = "h0" if value is None else heat_class(value, limit)
        cells.append(f'<td class="{colour}{own}">{scale.show(value)}</td>')
    count = report.matrix_counts.get(row)
    suffix = f' <span class="muted">({count:,})</span>' if count is not None else ""
    return f'<tr><th scope="row" title="{esc(row)}">{esc(shorten(row, 26))}{suffix}</th>{"".join(cells)}</tr>'
