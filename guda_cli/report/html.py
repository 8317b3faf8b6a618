"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guda_cli.report import words
from guda_cli.report.html_scores import matrix_section, means_section, queries_section
from guda_cli.report.markup import Column, esc, scrolling, table
from guda_cli.report.model import SIGN, Check, CostRow, ReportModel
from guda_cli.report.style import style_sheet
from guda_cli.report.text import change, count, duration, flatten, significant

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_OPEN_ROWS = 12
_MOST_CHECKS = 20


def render(report: ReportModel, *, top: int = 5, expanded: int = 200) -> str:
    """The whole page; ``top`` groups a query, the first ``expanded`` queries as cards."""
    sections = [
        ("queries", "Images", queries_section(report, top, expanded)),
        ("means", "Mean score per group", means_section(report)),
        ("matrix", "Groups against groups", matrix_section(report)),
        ("checks", "Were the groups unlearned?", _checks(report.checks)),
        ("costs", "Cost", _costs(report.costs)),
        ("limits", "Limits", _limits()),
        ("provenance", "Provenance", _provenance(report)),
    ]
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{esc(name)}</a>' for key, name, _ in shown)
    body = "".join(
        f'<section id="{key}"><h2>{esc(name)}</h2>{content}</section>' for key, name, content in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{esc(report.title)}</title><style>{style_sheet()}</style></head>"
        f'<body><main>{_head(report)}<nav aria-label="Sections">{links}</nav>{body}</main></body></html>\n'
    )


def _head(report: ReportModel) -> str:
    facts = "".join(
        f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in words.method_facts(report)
    )
    return (
        f'<header><h1>{esc(report.title)}</h1><p class="lead">{esc(words.headline(report))}</p>'
        f"<p>{esc(words.question(report))}</p><p>{esc(SIGN)} Negative: the image is explained better "
        f'without it.</p><dl class="facts">{facts}</dl>{_warnings(report.warnings)}</header>'
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{esc(warning)}</li>" for warning in warnings)
    return f'<div class="note" role="note"><strong>Warnings</strong><ul>{items}</ul></div>'


def _checks(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    failed = sum(not check.passed for check in checks)
    verdict = (
        f"{failed} of {len(checks)} checks failed: do not rely on the scores of these groups."
        if failed
        else f"All {len(checks)} models passed."
    )
    columns = [
        Column("Group"),
        Column("Result"),
        Column("Loss on the group", True),
        Column("Change", True),
        Column("Loss on the rest", True),
        Column("Change", True),
        Column("Why", css="c-why"),
    ]
    rows = {ok: [_check_row(check) for check in checks if check.passed is ok] for ok in (False, True)}
    caption = "Denoising loss per pixel, full model → model without the group"
    intro = (
        "A model without a group should be worse on that group and as good as before on the rest. " + verdict
    )
    if len(checks) <= _MOST_CHECKS:
        return f"<p>{esc(intro)}</p>" + scrolling(table(caption, columns, rows[False] + rows[True]), caption)
    shown = scrolling(table(caption, columns, rows[False]), caption) if failed else ""
    passed = scrolling(table(caption, columns, rows[True]), "Passed checks")
    return f"<p>{esc(intro)}</p>{shown}{_details(f'The {len(rows[True])} that passed', passed)}"


def _check_row(check: Check) -> list[str]:
    result = '<span class="good">passed</span>' if check.passed else '<span class="bad">FAILED</span>'
    pairs = ((check.group_before, check.group_after), (check.rest_before, check.rest_after))
    losses = [
        cell
        for before, after in pairs
        for cell in (f"{significant(before)} → {significant(after)}", change(before, after))
    ]
    return [esc(check.group), result, *losses, esc(check.why)]


def _costs(costs: Sequence[CostRow]) -> str:
    if not costs:
        return ""
    numeric = [Column("Seconds", True), Column("Forward-equivalents", True)]
    columns = [Column("Step"), Column("Run", True), Column("Cached", True), Column("Time", True), numeric[1]]
    totals = [
        [esc(name), f"{run:,}", f"{cached:,}", duration(seconds), count(forwards)]
        for name, run, cached, seconds, forwards in words.cost_totals(costs)
    ]
    short = table("Work by step", columns, totals[:-3], foot=totals[-3:])
    rows = [
        [
            esc(row.step),
            esc(row.what),
            esc(row.status),
            duration(row.seconds),
            count(row.forwards),
            esc(row.created),
        ]
        for row in costs
    ]
    heads = [
        Column("Step"),
        Column("What"),
        Column("Status"),
        Column("Time", True),
        numeric[1],
        Column("Made"),
    ]
    every = scrolling(table("Every action", heads, rows), "Every action")
    opened = " open" if len(rows) <= _OPEN_ROWS else ""
    return (
        f"<p>{esc(words.FORWARD_NOTE)} Cached actions show what they cost when they were run.</p>"
        f"{scrolling(short, 'Work by step')}<details{opened}><summary>Every action</summary>{every}</details>"
    )


def _limits() -> str:
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in words.LIMITS)}</ul>"


def _provenance(report: ReportModel) -> str:
    sizes = [[esc(g), f"{report.group_sizes.get(g, 0):,}"] for g in report.groups]
    groups = table("Groups of the training data", [Column("Group"), Column("Images", True)], sizes)
    return (
        _details("Where these numbers come from", _pairs(report.provenance, "Provenance"))
        + _details(f"Groups ({len(report.groups):,})", scrolling(groups, "Groups"))
        + _details(f"Recipe {report.recipe_name}", f"<pre><code>{esc_lines(report.recipe_yaml)}</code></pre>")
    )


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{esc(summary)}</summary>{content}</details>"


def _pairs(values: Mapping[str, object], label: str) -> str:
    rows = [[esc(key), f"<code>{esc(value)}</code>"] for key, value in flatten(values)]
    return scrolling(table(label, [Column("What"), Column("Value")], rows, quiet=True), label)


def esc_lines(text: str) -> str:
    """Escaped text that keeps its line breaks."""
    return "\n".join(esc(line.expandtabs(4)) for line in text.splitlines())
