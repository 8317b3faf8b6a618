"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.answers import words
from guda_cli.report.answers.content import Check, CostRow, ReportModel
from guda_cli.report.answers.page_gallery import GALLERY_CSS, gallery_section, regeneration_section
from guda_cli.report.answers.page_sections import matrix_section, means_section, queries_section
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.skeleton import details, document, facts_list, pairs, recipe, warnings_note
from guda_cli.report.pieces.text import change, count, duration, significant

_OPEN_ROWS = 12
_MOST_CHECKS = 20


def render(report: ReportModel, *, top: int = 5, expanded: int = 200) -> str:
    """The whole page; ``top`` groups a query, the first ``expanded`` queries as cards."""
    sections = [
        ("queries", "Images", queries_section(report, top, expanded)),
        ("gallery", "Had it never seen …", gallery_section(report)),
        ("regeneration", "Drawn without the groups", regeneration_section(report)),
        ("means", "Mean score per group", means_section(report)),
        ("matrix", "Groups against groups", matrix_section(report)),
        ("checks", "Were the groups unlearned?", _checks(report.checks)),
        ("costs", "Cost", _costs(report.costs)),
        ("limits", "Limits", _limits(report)),
        ("provenance", "Provenance", _provenance(report)),
    ]
    return document(report.title, _head(report), sections, css=GALLERY_CSS if report.gallery else "")


def _head(report: ReportModel) -> str:
    sign = words.sign(report.counterfactual)
    if report.counterfactual:
        sign += " Negative: the image is explained better without it."
    return (
        f'<header><h1>{esc(report.title)}</h1><p class="lead">{esc(words.headline(report))}</p>'
        f"<p>{esc(words.question(report))}</p><p>{esc(sign)}</p>"
        f"{facts_list(words.method_facts(report))}{warnings_note(report.warnings)}</header>"
    )


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
    return f"<p>{esc(intro)}</p>{shown}{details(f'The {len(rows[True])} that passed', passed)}"


def _check_row(check: Check) -> list[str]:
    result = '<span class="good">passed</span>' if check.passed else '<span class="bad">FAILED</span>'
    losses_of = ((check.group_before, check.group_after), (check.rest_before, check.rest_after))
    losses = [
        cell
        for before, after in losses_of
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
    return (
        f"<p>{esc(words.FORWARD_NOTE)} Cached actions show what they cost when they were run.</p>"
        + scrolling(short, "Work by step")
        + details("Every action", every, opened=len(rows) <= _OPEN_ROWS)
    )


def _limits(report: ReportModel) -> str:
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in words.limits(report))}</ul>"


def _provenance(report: ReportModel) -> str:
    sizes = [[esc(g), f"{report.group_sizes.get(g, 0):,}"] for g in report.groups]
    groups = table("Groups of the training data", [Column("Group"), Column("Images", True)], sizes)
    return (
        details("Where these numbers come from", pairs(report.provenance, "Provenance"))
        + details(f"Groups ({len(report.groups):,})", scrolling(groups, "Groups"))
        + recipe(report.recipe_name, report.recipe_yaml)
    )
