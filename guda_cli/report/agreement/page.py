"""The agreement report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from guda_cli.report.agreement import plots, words
from guda_cli.report.agreement.content import (
    METRICS,
    AgreementReport,
    AgreementRow,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import range_text, speedup_text, time_text, value_text, work_text
from guda_cli.report.agreement.words import APART, BEST, CLOSE, Placed
from guda_cli.report.answers.words import listed
from guda_cli.report.pieces.markup import Column, esc, scrolling, table
from guda_cli.report.pieces.plot_css import PLOT_CSS
from guda_cli.report.pieces.skeleton import details, document, facts_list, pairs, recipe, warnings_note
from guda_cli.report.pieces.text import UNKNOWN, finite, number, printable, shorten

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
    rows = words.placed(one)
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
    priced = words.has_costs([p.row for p in rows])
    heads = [f"RBO ≤{number(report.rbo_max, 2)}" if m == "rbo" else words.HEADS[m] for m in METRICS]
    columns = [Column("Method"), *(Column(head, True) for head in heads)]
    columns += [Column(head, True) for head in ("Preparation", "A query", "Speed-up")] if priced else []
    best = {metric: words.highest(one, metric) for metric in METRICS}
    made = {
        apart: [_row(p, best, priced) for p in rows if (p.place == APART) is apart] for apart in (False, True)
    }
    caption = f"Agreement with the oracle under {one.weighting} ({one.unit})"
    if not made[False]:
        made = {False: made[True], True: []}
    return scrolling(table(caption, columns, made[False], foot=made[True], css="agreement"), caption)


def _row(p: Placed, best: dict[str, str], priced: bool) -> list[str]:
    badge = f' <span class="badge">{_BADGES[p.place]}</span>' if p.place in _BADGES else ""
    name = shorten(printable(p.row.name), _LONGEST)
    cells = [f'<span title="{esc(p.row.name)}">{esc(name)}</span>{badge}']
    cells += [_value(p.row.metrics.get(m), best[m] if p.place != APART else None) for m in METRICS]
    return cells + (_costs(p.row) if priced else [])


def _value(interval: Interval | None, best: str | None) -> str:
    value = value_text(interval)
    shown = f"<strong>{value}</strong>" if value == best else value
    return shown + _below(range_text(interval))


def _below(text: str) -> str:
    return f'<span class="below">{esc(text)}</span>' if text not in {"", UNKNOWN} else ""


def _costs(row: AgreementRow) -> list[str]:
    prepare, prepare_time, query, query_time, speedup, speedup_time = words.costs(row)
    times = [time_text(prepare_time), time_text(query_time)]
    cells = [work_text(prepare) + _below(times[0]), work_text(query) + _below(times[1])]
    in_time = f"{speedup_text(speedup_time)} in time" if finite(speedup_time) is not None else ""
    return [*cells, speedup_text(speedup) + _below(in_time)]


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
    columns = [
        Column("Timesteps"),
        *(Column(words.HEADS[m], True) for m in METRICS),
        Column("Reliability", True),
    ]
    rows = [_band_row(band) for band in report.bands]
    numbers = details(
        "As numbers", scrolling(table("Ceiling by band", columns, rows, css="agreement"), "Ceiling")
    )
    return f"<p>{esc(intro)}</p>{_figure(drawing, caption) if drawing else ''}{numbers}"


def _band_row(band: BandPoint) -> list[str]:
    values = [_value(band.metrics.get(m), None) for m in METRICS]
    return [f"{band.t_low}–{band.t_high}", *values, number(band.reliability, 2)]


def _steps(report: AgreementReport) -> str:
    out = []
    for weighting in dict.fromkeys(point.weighting for point in report.steps):
        mine = [point for point in report.steps if point.weighting == weighting]
        judged = next((one for one in report.tables if one.weighting == weighting), None)
        drawings = "".join(plots.steps_plot(mine, judged, metric) for metric in plots.SHOWN)
        caption = f"Under {weighting}; the other settings alike. Vertical lines are 95 % intervals."
        columns = [
            Column("Operator"),
            Column("Steps", True),
            *(Column(words.HEADS[m], True) for m in METRICS),
        ]
        rows = [_step_row(p) for p in sorted(mine, key=lambda p: (p.operator, p.steps))]
        title = f"Agreement by unlearning steps under {weighting}"
        numbers = details("As numbers", scrolling(table(title, columns, rows, css="agreement"), title))
        out.append((_figure(drawings, caption) if drawings else "") + numbers)
    return "".join(out)


def _step_row(point: StepPoint) -> list[str]:
    values = [_value(point.metrics.get(m), None) for m in METRICS]
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
