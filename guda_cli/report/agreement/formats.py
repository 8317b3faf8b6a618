"""The agreement report as CSV, JSON and LaTeX. The documents are described in docs/table-formats.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guda_cli.jsonable import plain
from guda_cli.report.agreement import columns, words
from guda_cli.report.agreement.columns import MetricColumn, RowColumn, View
from guda_cli.report.agreement.content import (
    AgreementReport,
    AgreementTable,
    BandPoint,
    Interval,
    StepPoint,
)
from guda_cli.report.agreement.figures import known, value_text
from guda_cli.report.agreement.standing import APART, Placed, placed
from guda_cli.report.pieces.csv_cells import csv_cell, csv_line
from guda_cli.report.pieces.text import MINUS, UNKNOWN, printable

SCHEMA = "guda.agreement/1"
_ENDS = ("", "_low", "_high")  # of a metric's three columns in the CSV
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    MINUS: "$-$",
    UNKNOWN: "--",
} | {c: f"\\{c}" for c in "&%$#_{}"}


def to_csv(report: AgreementReport) -> str:
    """One line a weighting and row, in the order of the tables; empty cells where there is no value."""
    shown = columns.pick(View.CSV)
    lines = [csv_line([name for column in shown for name in _csv_names(column)])]
    for table in report.tables:
        for one in placed(table):
            lines.append(csv_line([cell for column in shown for cell in _csv_cells(column, table, one)]))
    return "\n".join([*lines, ""])


def _csv_names(column: RowColumn | MetricColumn) -> list[str]:
    ends = _ENDS if isinstance(column, MetricColumn) else ("",)
    return [column.name + end for end in ends]


def _csv_cells(column: RowColumn | MetricColumn, table: AgreementTable, one: Placed) -> list[object]:
    if isinstance(column, MetricColumn):
        values = column.of(one.row.metrics) or (None,) * len(_ENDS)
        return [csv_cell(value, number=True) for value in values]
    return [csv_cell(column.datum(table, one), number=column.number)]


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
        "rows": [_json_row(table, one) for one in placed(table)],
    }


def _json_row(table: AgreementTable, one: Placed) -> dict[str, Any]:
    """The row's columns; its metrics stand together, where the first of them is."""
    document: dict[str, Any] = {}
    for column in columns.pick(View.JSON):
        if isinstance(column, MetricColumn):
            document.setdefault("metrics", _metrics(one.row.metrics))
        else:
            document[column.name] = column.datum(table, one)
    return document


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
    """Those metrics that are known, by name."""
    found = [(column.name, column.of(metrics)) for column in columns.metrics(View.JSON)]
    return {name: interval._asdict() for name, interval in found if interval is not None}


def to_latex(report: AgreementReport) -> str:
    """One booktabs tabular a weighting: value with interval, each column's best method in bold.

    Random and ceiling stand apart below the methods. Needs the package booktabs.
    """
    return "\n".join(_latex_table(report, table) for table in report.tables)


def _latex_table(report: AgreementReport, table: AgreementTable) -> str:
    rows = placed(table)
    shown = columns.pick(View.LATEX, [one.row for one in rows])
    best = {c.name: columns.highest(table, c) for c in shown if isinstance(c, MetricColumn)}
    lines = {
        apart: [_latex_row(shown, one, best) for one in rows if (one.place == APART) is apart]
        for apart in (False, True)
    }
    blocks = [block for block in (lines[False], lines[True]) if block]
    body = [line for i, block in enumerate(blocks) for line in ([r"\midrule"] if i else []) + block]
    title = f"Agreement with the oracle under {table.weighting}: "
    title += f"{report.queries} queries, {len(report.groups)} groups"
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in shown)}}}",
            r"\toprule",
            rf"\multicolumn{{{len(shown)}}}{{l}}{{{_tex(title)}}} \\",
            r"\midrule",
            " & ".join(_latex_head(column, report) for column in shown) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_head(column: RowColumn | MetricColumn, report: AgreementReport) -> str:
    if not isinstance(column, MetricColumn):
        return _tex(column.head(View.LATEX))
    return rf"{_tex(column.title)} ($\le {column.most(report):.2f}$)" if column.most else _tex(column.title)


def _latex_row(shown: Sequence[RowColumn | MetricColumn], one: Placed, best: Mapping[str, str]) -> str:
    cells = [
        _latex_value(column.of(one.row.metrics), best[column.name] if one.place != APART else None)
        if isinstance(column, MetricColumn)
        else _tex(column.text(View.LATEX, one))
        for column in shown
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
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(c, c) for c in printable(text).replace("\ufffd", "?"))
