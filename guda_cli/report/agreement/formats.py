"""The agreement report as CSV, JSON and LaTeX. The documents are described in docs/table-formats.md."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from guda_cli.report.agreement import words
from guda_cli.report.agreement.content import (
    METRICS,
    AgreementReport,
    AgreementRow,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import known, speedup_text, value_text, work_text
from guda_cli.report.agreement.words import APART
from guda_cli.report.answers.formats import latex_escape, plain
from guda_cli.report.pieces.text import UNKNOWN, finite, printable

SCHEMA = "guda.agreement/1"
EVERY_METRIC = (*METRICS, "ndcg@3:linear", "ndcg@5:linear")
_COSTS = (
    *("prepare_forwards", "prepare_seconds", "query_forwards", "query_seconds"),
    *("speedup_forwards", "speedup_seconds"),
)
CSV_COLUMNS = (
    *("weighting", "unit", "rank", "method", "kind", "standing"),
    *(f"{metric}{end}" for metric in EVERY_METRIC for end in ("", "_low", "_high")),
    *_COSTS,
    *("reliability", "reliability_mean", "settings", "note"),
)
_STANDING = {words.CLOSE: "close"}


def to_csv(report: AgreementReport) -> str:
    """One line a weighting and row, in the order of the tables; empty cells where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in report.tables:
        for rank, (row, place) in enumerate(words.placed(table), 1):
            writer.writerow(_csv_row(table, row, place, rank))
    return out.getvalue().encode("utf-8", "replace").decode("utf-8")


def _csv_row(table: AgreementTable, row: AgreementRow, place: str, rank: int) -> dict[str, object]:
    cells: dict[str, object] = {
        "weighting": table.weighting,
        "unit": table.unit,
        "rank": "" if place == APART else rank,
        "method": row.name,
        "kind": row.kind,
        "standing": _STANDING.get(place, place),
    }
    for metric in EVERY_METRIC:
        values = row.metrics.get(metric) or (None, None, None)
        for end, value in zip(("", "_low", "_high"), values, strict=True):
            cells[metric + end] = _cell(value)
    cells |= {name: _cell(getattr(row, name)) for name in _COSTS}
    cells |= {"reliability": _cell(table.reliability), "reliability_mean": _cell(table.reliability_mean)}
    settings = json.dumps(plain(row.settings), sort_keys=True) if row.settings else ""
    return {**cells, "settings": settings, "note": row.note}


def _cell(value: float | None) -> str:
    known = finite(value)
    return "" if known is None else repr(known)


def to_json(report: AgreementReport) -> dict[str, Any]:
    """The whole report; rows in the order of the tables."""
    document = plain(
        {
            "schema": SCHEMA,
            "title": report.title,
            "created": report.created,
            "recipe": {"name": report.recipe_name, "yaml": report.recipe_yaml},
            "oracle": report.oracle,
            "seeds": report.seeds,
            "groups": report.groups,
            "left_out": report.left_out,
            "queries": report.queries,
            "centred": report.centred,
            "grid": report.grid,
            "ndcg": words.NDCG,
            "rbo_max": report.rbo_max,
            "logo": {"forwards": report.logo_forwards, "seconds": report.logo_seconds},
            "tables": [_table(report, table) for table in report.tables],
            "bands": [_band(band) for band in report.bands],
            "steps": [_step(point) for point in report.steps],
            "warnings": report.warnings,
            "provenance": report.provenance,
        }
    )
    assert isinstance(document, dict)
    return document


def _table(report: AgreementReport, table: AgreementTable) -> dict[str, Any]:
    return {
        "weighting": table.weighting,
        "unit": table.unit,
        "reliability": table.reliability,
        "reliability_mean": table.reliability_mean,
        "notes": words.notes(report, table),
        "rows": [
            {
                "method": row.name,
                "kind": row.kind,
                "standing": _STANDING.get(place, place) or None,
                "metrics": _metrics(row.metrics),
                **{name: getattr(row, name) for name in _COSTS},
                "settings": row.settings,
                "note": row.note,
            }
            for row, place in words.placed(table)
        ],
    }


def _band(band: BandPoint) -> dict[str, Any]:
    metrics = _metrics(band.metrics)
    return {
        "t_low": band.t_low,
        "t_high": band.t_high,
        "metrics": metrics,
        "reliability": band.reliability,
    }


def _step(point: StepPoint) -> dict[str, Any]:
    return {
        "operator": point.operator,
        "weighting": point.weighting,
        "steps": point.steps,
        "metrics": _metrics(point.metrics),
    }


def _metrics(metrics: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval._asdict() for name, interval in metrics.items()}


def to_latex(report: AgreementReport) -> str:
    """One booktabs tabular a weighting: value with interval, each column's best method in bold.

    Random and ceiling stand apart below the methods. Needs the package booktabs.
    """
    return "\n".join(_latex_table(report, table) for table in report.tables)


def _latex_table(report: AgreementReport, table: AgreementTable) -> str:
    rows = words.placed(table)
    priced = words.has_costs([p.row for p in rows])
    heads = [rf"RBO ($\le {report.rbo_max:.2f}$)" if m == "rbo" else words.HEADS[m] for m in METRICS]
    heads += ["Preparation", "A query", "Speed-up"] if priced else []
    best = {metric: words.highest(table, metric) for metric in METRICS}
    lines = {
        apart: [_latex_row(p.row, p.place, best, priced) for p in rows if (p.place == APART) is apart]
        for apart in (False, True)
    }
    blocks = [block for block in (lines[False], lines[True]) if block]
    body = [line for i, block in enumerate(blocks) for line in ([r"\midrule"] if i else []) + block]
    title = f"Agreement with the oracle under {table.weighting}: "
    title += f"{report.queries} queries, {len(report.groups)} groups"
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
            r"\toprule",
            rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{{_tex(title)}}} \\",
            r"\midrule",
            " & ".join(["Method", *heads]) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_row(row: AgreementRow, place: str, best: Mapping[str, str], priced: bool) -> str:
    cells = [_tex(row.name)]
    cells += [_latex_value(row.metrics.get(m), best[m] if place != APART else None) for m in METRICS]
    if priced:
        cells += [
            _tex(work_text(row.prepare_forwards)),
            _tex(work_text(row.query_forwards)),
            _tex(speedup_text(row.speedup_forwards)),
        ]
    return " & ".join(cells) + r" \\"


def _latex_value(interval: Interval | None, best: str | None) -> str:
    found = known(interval)
    if found is None:
        return "--"
    value = _tex(value_text(found))
    shown = rf"\textbf{{{value}}}" if value_text(found) == best else value
    ends = ", ".join(_tex(value_text(Interval(end, end, end))) for end in found[1:])
    return rf"{shown} {{\scriptsize [{ends}]}}"


def _tex(text: str) -> str:
    return latex_escape(printable(text).replace("\ufffd", "?").replace(UNKNOWN, "--")).replace(
        "×", r"$\times$"
    )
