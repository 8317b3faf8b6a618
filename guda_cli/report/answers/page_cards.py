"""The page's images: a card each, the first in the open, the others in a fold."""

from __future__ import annotations

import json
from collections.abc import Sequence

from guda_cli.report.answers import columns, words
from guda_cli.report.answers.columns import Kind, Line, ScoreColumn, View
from guda_cli.report.answers.content import InstanceScore, QueryResult, ReportModel
from guda_cli.report.answers.page_beside import maps_of, training_of
from guda_cli.report.answers.page_controls import controls, verdict
from guda_cli.report.pieces.markup import Column, bar, clipped, esc, span, table, thumbnail
from guda_cli.report.pieces.skeleton import behind, details
from guda_cli.report.pieces.text import UNKNOWN, Scale, finite, printable, scale_for

MOST = 12
"""Groups a card at most for standing out."""
_INSTANCE = 96
_LONGEST = 120  # characters of a prompt that stand in the open
_SIDES = ((60, 256), (400, 152))  # up to so many images, pixels a side of their pictures
_LEAST = 96


def images_section(report: ReportModel, top: int, expanded: int) -> str:
    """Every image as a card; all but the first ``expanded`` in a fold."""
    queries = report.queries
    if not queries:
        return ""
    side = next((side for most, side in _SIDES if len(queries) <= most), _LEAST)
    cards = [image_card(report, query, top, side) for query in queries]
    shown = f'<div class="cards">{"".join(cards[:expanded])}</div>'
    if rest := cards[expanded:]:
        others = f'<div class="cards">{"".join(rest)}</div>'
        shown += details(f"The other {len(rest):,} images", others, css="others")
    return _intro(report, top) + controls(queries) + shown


def _intro(report: ReportModel, top: int) -> str:
    text = f"The {min(top, len(report.groups))} highest groups of each image. "
    if columns.have_errors(entry for query in report.queries for entry in query.scores):
        text += "The lines show the 95 % Monte-Carlo interval, ± the standard error. "
    text += "Bars of one card share a scale; bars of two cards do not. "
    if report.null is not None:
        text += "Pale bars do not stand out."
    lines = (words.null_line(report), words.looks_line(report), words.retraining_line(report))
    small = (*lines, *_beside(report))
    rest = "".join(f'<p class="muted small">{esc(line)}</p>' for line in small if line)
    return f'<div class="intro"><p>{esc(text.strip())}</p>{rest}</div>'


def _beside(report: ReportModel) -> list[str]:
    """What the pictures are that were asked for."""
    lines = []
    if report.training is not None:
        lines.append(words.training_line(report.training))
    if report.maps is not None:
        lines.append(words.maps_line(report.maps))
    return lines


def image_card(report: ReportModel, query: QueryResult, top: int, side: int = _SIDES[0][1]) -> str:
    """One image's card; `side` are the pixels of its picture at most."""
    looks = f" · looks like {esc(query.looks_like)}" if query.looks_like else ""
    lines = [_muted(words.elbo_line(query)), _condition(query)]
    below = [
        _muted(words.foretold_line(query)),
        training_of(report, query),
        maps_of(report, query),
        _instances(query.instances),
    ]
    return (
        f'<article class="card"{_data(query, top)}>'
        f"<header>{thumbnail(query.pixels, query.name, most=side, css='thumb')}"
        f"<div><h3 data-text>{clipped(query.name, 80)}</h3>"
        f'<p class="muted small"><code title="{esc(query.digest)}" data-text>{esc(query.digest[:12])}</code>'
        f'{looks}</p><p class="answer">{esc(words.query_answer(query))}</p>{"".join(lines)}</div></header>'
        f"{_bars(query, top, report.counterfactual)}{''.join(below)}</article>"
    )


def _data(query: QueryResult, top: int) -> str:
    """What the page's script filters and sorts by, beside the text of the card."""
    first = query.scores[0] if query.scores else None
    values = {} if first is None else {"score": first.score, "z": first.z, "se": first.se}
    known = {name: finite(value) for name, value in values.items()}
    told = "".join(f' data-{name}="{value:.6g}"' for name, value in known.items() if value is not None)
    shown = {line.entry.group for line in chosen(query, top)}
    more = [printable(e.group) for e in query.scores if e.stands_out and e.group not in shown]
    also = f' data-also="{esc(json.dumps(more))}"' if more else ""
    return f' data-verdict="{verdict(query)}"{told}{also}'


def _muted(text: str) -> str:
    return f'<p class="muted small">{esc(text)}</p>' if text else ""


def _condition(query: QueryResult) -> str:
    """The class or the prompts; long ones behind their first words."""
    told = words.condition(query)
    return f'<div class="small" data-text>{behind(told, _LONGEST)}</div>' if told else ""


def _instances(instances: Sequence[InstanceScore]) -> str:
    """The training images of the highest score, as thumbnails with name, groups and score."""
    if not instances:
        return ""
    scale = scale_for([one.score for one in instances])
    items = "".join(
        f"<li>{thumbnail(one.pixels, one.name, most=_INSTANCE, css='instance', what='training')}"
        f'<span class="instance-name">{clipped(one.name, 24)}</span>'
        f'<span class="muted">{clipped(", ".join(one.groups) or UNKNOWN, 24)}</span>'
        f"<span>{scale.show(one.score, sign=True)}</span></li>"
        for one in instances
    )
    head = f"Training images, highest score first {scale.label}".rstrip()
    return f'<p class="muted small">{esc(head)}</p><ol class="instances">{items}</ol>'


def chosen(query: QueryResult, top: int) -> list[Line]:
    """The first ``top`` groups, and more of those that stand out, up to twelve."""
    return columns.ranked(query, max(top, min(sum(bool(e.stands_out) for e in query.scores), MOST)))


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
    return text if column.kind is Kind.NUMBER else clipped(text, 44)
