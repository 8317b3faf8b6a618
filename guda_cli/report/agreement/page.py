"""The agreement report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guda_cli.report.agreement import columns, plots, words
from guda_cli.report.agreement.columns import MetricColumn, RowColumn, View
from guda_cli.report.agreement.content import (
    AgreementReport,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import range_text, value_text
from guda_cli.report.agreement.standing import APART, BEST, CLOSE, Placed, placed
from guda_cli.report.answers.words import listed
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.plot_css import PLOT_CSS
from guda_cli.report.pieces.skeleton import details, document, facts_list, pairs, recipe, warnings_note
from guda_cli.report.pieces.text import UNKNOWN, number, printable, shorten

_BADGES = {BEST: "best", CLOSE: "≈ best"}
_LONGEST = 60


def render_html(report: AgreementReport) -> str:
    """The whole page; what there is no data for is left out with its heading."""
    weightings = [
        (f"weighting-{i}", f"Weighting {one.weighting}", _weighting(report, one))
        for i, one in enumerate(report.tables, 1)
    ]
    sections = [
        *weightings,
        ("bands", words.CEILING_TITLE, _bands(report)),
        ("steps", words.STEPS_TITLE, _steps(report)),
        ("reading", "How to read this", _reading()),
        ("provenance", "Provenance", _provenance(report)),
    ]
    return document(report.title, _head(report), sections, css=PLOT_CSS)


def _head(report: AgreementReport) -> str:
    lead, *more = [words.verdict(one) for one in report.tables] or ["No method has been judged yet."]
    rest = "".join(f"<p>{esc(line)}</p>" for line in more)
    return (
        f'<header><h1>{esc(report.title)}</h1><p class="lead">{esc(lead)}</p>{rest}'
        f"{facts_list(words.facts(report))}{warnings_note(report.warnings)}</header>"
    )


def _weighting(report: AgreementReport, one: AgreementTable) -> str:
    rows = placed(one)
    notes = "".join(_note(line) for line in words.notes(report, one))
    figures = "".join(plots.cost_plot(report, one, metric) for metric in plots.SHOWN)
    return (
        (_table(report, one, rows) if rows else "")
        + f'<ul class="notes">{notes}</ul>'
        + (_figure(figures, _cost_caption(one)) if figures else "")
    )


def _note(line: str) -> str:
    kind = "grave" if words.grave(line) else "plain"
    return f'<li class="{kind}">{esc(line)}</li>'


def _table(report: AgreementReport, one: AgreementTable, rows: Sequence[Placed]) -> str:
    shown = columns.pick(View.PAGE, [p.row for p in rows])
    best = {c.name: columns.highest(one, c) for c in shown if isinstance(c, MetricColumn)}
    made = {
        apart: [_row(p, shown, best) for p in rows if (p.place == APART) is apart] for apart in (False, True)
    }
    caption = f"Agreement with the oracle under {one.weighting} ({one.unit})"
    if not made[False]:
        made = {False: made[True], True: []}
    return scrolling(
        table(
            caption,
            [_head_of(c, report) for c in shown],
            made[False],
            foot=made[True],
            css="agreement",
            sort=True,
        ),
        caption,
    )


def _head_of(column: RowColumn | MetricColumn, report: AgreementReport) -> Column:
    if not isinstance(column, MetricColumn):
        return Column(column.head(View.PAGE), column.number)
    most = f" ≤{number(column.most(report), 2)}" if column.most else ""
    return Column(column.title + most, True)


def _row(p: Placed, shown: Sequence[RowColumn | MetricColumn], best: Mapping[str, str]) -> list[str]:
    """The cells of a row; the first, the method's name, has a badge where it stands among the best."""
    name, *cells = [
        _value(column.of(p.row.metrics), best[column.name] if p.place != APART else None)
        if isinstance(column, MetricColumn)
        else _cell(column, p)
        for column in shown
    ]
    badge = f' <span class="badge">{_BADGES[p.place]}</span>' if p.place in _BADGES else ""
    return [name + badge, *cells]


def _cell(column: RowColumn, p: Placed) -> str:
    text, below = column.text(View.PAGE, p), column.shown[View.PAGE].below
    if not column.number:
        text = f'<span title="{esc(text)}">{esc(shorten(printable(text), _LONGEST))}</span>'
    else:
        text = esc(text)
    return text + (_below(below(p)) if below else "")


def _value(interval: Interval | None, best: str | None) -> str:
    value = value_text(interval)
    shown = f"<strong>{value}</strong>" if value == best else value
    return shown + _below(range_text(interval))


def _below(text: str) -> str:
    return f'<span class="below">{esc(text)}</span>' if text not in {"", UNKNOWN} else ""


def _figure(drawings: str, caption: str) -> str:
    return f'<figure><div class="plots">{drawings}</div><figcaption>{esc(caption)}</figcaption></figure>'


def _cost_caption(one: AgreementTable) -> str:
    text = (
        "Agreement against preparation cost. Red: the best top-1; blue: not distinguishable from it; hollow: "
        "behind. Lines are 95 % intervals; points of nearly the same cost are moved apart a little."
    )
    missing = [printable(row.name) for row in plots.uncosted(one)]
    return text + (f" Not shown, as their cost is not known: {listed(missing)}." if missing else "")


def _bands(report: AgreementReport) -> str:
    drawing = plots.bands_plot(report.bands, len(report.groups))
    if not report.bands:
        return ""
    intro = (
        "The oracle of one seed against that of another, from single bands of timesteps. Where both are "
        "high, its ranking is signal; where they are low, two retrainings differ by chance."
    )
    caption = (
        "Horizontal lines span the band, vertical ones are 95 % intervals. Chance: the top-1 of a random "
        f"ranking. r is the reliability of one seed; the mean over all seeds should have {words.TRUST:g}."
    )
    heads = [
        Column("Timesteps"),
        *(Column(metric.title, True) for metric in columns.metrics(View.PAGE)),
        Column("Reliability", True),
    ]
    rows = [_band_row(band) for band in report.bands]
    numbers = details(
        "As numbers", scrolling(table("Ceiling by band", heads, rows, css="agreement", sort=True), "Ceiling")
    )
    return f"<p>{esc(intro)}</p>{_figure(drawing, caption) if drawing else ''}{numbers}"


def _band_row(band: BandPoint) -> list[str]:
    values = [_value(metric.of(band.metrics), None) for metric in columns.metrics(View.PAGE)]
    return [f"{band.t_low}–{band.t_high}", *values, number(band.reliability, 2)]


def _steps(report: AgreementReport) -> str:
    out = []
    for weighting in dict.fromkeys(point.weighting for point in report.steps):
        mine = [point for point in report.steps if point.weighting == weighting]
        judged = next((one for one in report.tables if one.weighting == weighting), None)
        drawings = "".join(plots.steps_plot(mine, judged, metric) for metric in plots.SHOWN)
        caption = f"Under {weighting}; the other settings alike. Vertical lines are 95 % intervals."
        heads = [
            Column("Operator"),
            Column("Steps", True),
            *(Column(metric.title, True) for metric in columns.metrics(View.PAGE)),
        ]
        rows = [_step_row(p) for p in sorted(mine, key=lambda p: (p.operator, p.steps))]
        title = f"Agreement by unlearning steps under {weighting}"
        numbers = details(
            "As numbers", scrolling(table(title, heads, rows, css="agreement", sort=True), title)
        )
        out.append((_figure(drawings, caption) if drawings else "") + numbers)
    return "".join(out)


def _step_row(point: StepPoint) -> list[str]:
    values = [_value(metric.of(point.metrics), None) for metric in columns.metrics(View.PAGE)]
    return [esc(point.operator), f"{point.steps:,}", *values]


def _reading() -> str:
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in words.READING)}</ul>"


def _provenance(report: AgreementReport) -> str:
    settings = {row.name: dict(row.settings) for one in report.tables for row in one.rows if row.settings}
    judged = {"judged": list(report.groups), "left out (tuned on)": list(report.left_out)}
    return (
        (details("Settings of the methods", pairs(settings, "Settings")) if settings else "")
        + (
            details("Where these numbers come from", pairs(report.provenance, "P"))
            if report.provenance
            else ""
        )
        + details("Groups", pairs({k: v for k, v in judged.items() if v}, "Groups"))
        + recipe(report.recipe_name, report.recipe_yaml)
    )
