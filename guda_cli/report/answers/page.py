"""The report as one self-contained HTML page: nothing is loaded, and its script is not needed to read it."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.answers import words
from guda_cli.report.answers.content import Check, CostRow, QueryResult, ReportModel
from guda_cli.report.answers.page_cards import image_card, images_section
from guda_cli.report.answers.page_gallery import GALLERY_CSS, gallery_section, regeneration_section
from guda_cli.report.answers.page_sections import matrix_section, means_section
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.skeleton import (
    details,
    document,
    facts_list,
    folded_table,
    pairs,
    recipe,
    warnings_note,
)
from guda_cli.report.pieces.text import change, count, duration, significant

_OPEN_ROWS = 12
_MOST_FAILED = 40


def render(report: ReportModel, *, top: int = 5, expanded: int = 24) -> str:
    """The whole page; ``top`` groups an image, all but the first ``expanded`` images in a fold."""
    sections = [
        ("queries", "Images", images_section(report, top, expanded)),
        ("gallery", "Had it never seen …", gallery_section(report)),
        ("regeneration", "Drawn without the groups", regeneration_section(report)),
        ("means", "Mean score per group", means_section(report)),
        ("matrix", "Groups against groups", matrix_section(report)),
        ("trained", "Has the model learnt?", _trained(report)),
        ("checks", "Were the groups unlearned?", _checks(report.checks)),
        ("costs", "Cost", _costs(report.costs)),
        ("limits", "Limits", _limits(report)),
        ("provenance", "Provenance", _provenance(report)),
    ]
    return document(report.title, _head(report), sections, css=GALLERY_CSS if report.gallery else "")


def card(report: ReportModel, query: QueryResult, *, top: int = 5) -> str:
    """One query's card, as it stands in the page."""
    return image_card(report, query, top)


def _head(report: ReportModel) -> str:
    sign = words.sign(report.counterfactual)
    if report.counterfactual:
        sign += " Negative: the image is explained better without it."
    return (
        f'<header><h1>{esc(report.title)}</h1><p class="lead">{esc(words.headline(report))}</p>'
        f"<p>{esc(words.question(report))}</p><p>{esc(sign)}</p>"
        f"{facts_list(words.method_facts(report))}{warnings_note(report.warnings)}</header>"
    )


def _trained(report: ReportModel) -> str:
    """The full model's loss by band of noise, beside those of two models that know nothing."""
    found = report.training_check
    if found is None:
        return ""
    numbers = ("Loss", "Of the mean image", "Of the untrained network")
    columns = [Column("Timesteps"), *(Column(name, True) for name in numbers)]
    rows = [
        [
            f"{band['first']} to {band['last']}",
            *(significant(band[k]) for k in ("trained", "mean", "untrained")),
        ]
        for band in found["bands"]
    ]
    caption = "Denoising loss per pixel, from little noise to much"
    intro = (
        f"Check of the full model {_RESULTS[found['verdict']]}: {esc(found['why'])}. The mean image is the "
        "best guess that looks at one pixel at a time; a model that is not clearly better draws noise."
    )
    return f"<p>{intro}</p>{scrolling(table(caption, columns, rows), caption)}"


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
    order = sorted(checks, key=lambda check: words.VERDICTS.index(check.verdict))
    failed = sum(check.verdict == words.VERDICTS[0] for check in checks)
    caption = "Denoising loss per pixel, full model → model without the group"
    intro = (
        "A model without a group should be worse on that group and as good as before on the rest. "
        f"{words.checks_line(checks)} {words.MEMBERSHIP_NOTE if held else ''}"
    ).strip()
    rows = [_check_row(check, held) for check in order]
    shown = folded_table(caption, columns, rows, keep=min(failed, _MOST_FAILED))
    return f"<p>{esc(intro)}</p>{scrolling(shown, caption)}"


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
    heads = [Column("Group"), Column("Images", True)]
    groups = table("Groups of the training data", heads, sizes, sort=True)
    return (
        details("Where these numbers come from", pairs(report.provenance, "Provenance"))
        + details(f"Groups ({len(report.groups):,})", scrolling(groups, "Groups"))
        + recipe(report.recipe_name, report.recipe_yaml)
    )
