"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.answers import words
from guda_cli.report.answers.content import Check, CostRow, QueryResult, ReportModel
from guda_cli.report.answers.page_gallery import GALLERY_CSS, gallery_section, regeneration_section
from guda_cli.report.answers.page_sections import matrix_section, means_section, queries_section, query_card
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


def card(report: ReportModel, query: QueryResult, *, top: int = 5) -> str:
    """One query's card, as it stands in the page."""
    return query_card(query, top, report.counterfactual)


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
    held = any(check.held_out for check in checks)
    columns = [
        Column("Group"),
        Column("Result"),
        *(_LOSSES if not held else (*_LOSSES, *_HELD_OUT)),
        Column("Why", css="c-why"),
    ]
    rows = {v: [_check_row(c, held) for c in checks if c.verdict == v] for v in words.VERDICTS}
    against, passed = rows["failed"] + rows["doubtful"], rows["passed"]
    caption = "Denoising loss per pixel, full model → model without the group"
    intro = (
        "A model without a group should be worse on that group and as good as before on the rest. "
        f"{words.checks_line(checks)} {words.MEMBERSHIP_NOTE if held else ''}"
    ).strip()
    if len(checks) <= _MOST_CHECKS:
        return f"<p>{esc(intro)}</p>" + scrolling(table(caption, columns, against + passed), caption)
    shown = scrolling(table(caption, columns, against), caption) if against else ""
    folded = scrolling(table(caption, columns, passed), "Passed checks")
    return f"<p>{esc(intro)}</p>{shown}{details(f'The {len(passed)} that passed', folded)}"


_LOSSES = (
    Column("Loss on the group", True),
    Column("Change", True),
    Column("Loss on the rest", True),
    Column("Change", True),
)
_HELD_OUT = (
    Column("Held out: group", True),
    Column("Change", True),
    Column("Held out: rest", True),
    Column("Change", True),
    Column("Told apart", True),
)
_RESULTS = {
    "passed": '<span class="good">passed</span>',
    "doubtful": '<span class="doubt">doubtful</span>',
    "failed": '<span class="bad">FAILED</span>',
}


def _check_row(check: Check, held: bool) -> list[str]:
    sides = ((check.group_before, check.group_after), (check.rest_before, check.rest_after))
    cells = [cell for side in sides for cell in _losses(*side)]
    if held and check.held_out is None:
        cells += ["–"] * len(_HELD_OUT)
    elif check.held_out is not None:
        found = check.held_out
        both = ((found["group_before"], found["group_after"]), (found["rest_before"], found["rest_after"]))
        cells += [cell for side in both for cell in _losses(*side)] + [esc(words.told_apart(check))]
    return [esc(check.group), _RESULTS[check.verdict], *cells, esc(check.why)]


def _losses(before: float, after: float) -> tuple[str, str]:
    return f"{significant(before)} → {significant(after)}", change(before, after)


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
